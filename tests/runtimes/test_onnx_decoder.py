"""Language models in ONNX Runtime write what PyTorch writes: any batch, padding on the left, prompts of any length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_parts import TOLERANCE, exported

from compressbench.core.protocols import Batch, Decoding
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.torch_eager import TorchSession
from compressbench.tasks.batching import padded

pytest.importorskip("onnxruntime", reason="needs the extra onnxruntime")
pytest.importorskip("onnxscript", reason="needs the extra onnxruntime")


@pytest.fixture(scope="module")
def shakespeare() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm", device="cpu")


@pytest.fixture(scope="module")
def texts(shakespeare: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return exported(shakespeare, tmp_path_factory.mktemp("shakespeare"))


def prompts(rows: int, length: int) -> Batch:
    """Random tokens, the first row padded on the left to its middle."""
    ids = torch.randint(3, 1000, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[0, : length // 2] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def test_logits_of_a_language_model_are_those_of_pytorch_where_no_padding_is(
    shakespeare: ModelHandle, texts: Any
) -> None:
    for rows, length in ((1, 1), (3, 40), (2, 17)):
        batch = prompts(rows, length)
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with torch.inference_mode():
            expected = shakespeare.model(**batch, position_ids=positions).logits
        kept = batch["attention_mask"].bool()
        assert (texts(batch)[kept] - expected[kept]).abs().max() < TOLERANCE


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (3, 12), (2, 50)])
def test_generated_tokens_are_those_of_pytorch(shakespeare: ModelHandle, texts: Any, shape: tuple[int, int]) -> None:
    stamps: list[None] = []
    found = texts.generate(prompts(*shape), 40, lambda: stamps.append(None))
    expected = TorchSession(shakespeare.model, "cpu", shakespeare.tokenizer).generate(prompts(*shape), 40)
    assert found.tolist() == expected.tolist()
    assert len(stamps) == 40


@pytest.mark.parametrize(
    "decoding",
    [Decoding(max_new_tokens=24, until=("\n", "the")), Decoding(max_new_tokens=16, temperature=0.9, num_samples=3)],
    ids=["greedy", "sampled"],
)
def test_texts_are_those_of_pytorch(shakespeare: ModelHandle, texts: Any, decoding: Decoding) -> None:
    lines = ["ROMEO:\nI will", "What is", "O, that this too too solid flesh would melt"]
    batch = padded([shakespeare.tokenizer(line)["input_ids"] for line in lines], side="left")
    expected = TorchSession(shakespeare.model, "cpu", shakespeare.tokenizer).write(batch, decoding)
    assert texts.write(batch, decoding) == expected


def test_the_cache_is_counted_as_that_of_pytorch(shakespeare: ModelHandle, texts: Any) -> None:
    reference = TorchSession(shakespeare.model, "cpu", shakespeare.tokenizer)
    assert texts.kv_cache_bytes(prompts(2, 12), 5) == reference.kv_cache_bytes(prompts(2, 12), 5)


def test_a_step_of_a_language_model_attends_through_the_fused_operator(texts: Any) -> None:
    use = texts.kernels(prompts(1, 8), 3)
    assert use.counts["GroupQueryAttention float32"] == 3 * 4
    assert use.fallbacks == ()


@pytest.mark.slow
def test_the_head_of_a_language_model_is_quantized_though_it_shares_its_table(
    shakespeare: ModelHandle, tmp_path: Path
) -> None:
    session = exported(shakespeare, tmp_path, quantize="int8-blocks")
    assert shakespeare.model.lm_head.weight is shakespeare.model.model.embed_tokens.weight
    use = session.kernels(prompts(1, 8), 2)
    assert use.counts["MatMulNBits int8"] == 2 * (4 * 7 + 1)
    assert use.fallbacks == ()
