"""ONNX Runtime gives what eager PyTorch gives: encoders, a ViT and language models, at other shapes than the example's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import FAMILIES
from onnx_parts import TOLERANCE, copy_instead_of_exporting, exported
from pydantic import ValidationError

from compressbench.core.deploying import RunsFiles, SaysWhatItRuns, facts_of
from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.exported import export_whole
from compressbench.runtimes.onnxruntime import OnnxRuntime
from compressbench.runtimes.torch_eager import TorchSession

pytest.importorskip("onnxruntime", reason="needs the extra onnxruntime")
pytest.importorskip("onnxscript", reason="needs the extra onnxruntime")


@pytest.fixture(scope="module")
def minilm() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:minilm-banking77"), "sequence-classification", device="cpu")


@pytest.fixture(scope="module")
def minilm_folder(minilm: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("minilm")
    export_whole(OnnxRuntime(), "onnxruntime", minilm, folder)
    return folder


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    export_whole(OnnxRuntime(), "onnxruntime", FAMILIES["bert"].build(), folder)
    return folder


@pytest.fixture
def bert(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModelHandle:
    """A small BERT whose export is a copy of one that was made before."""
    copy_instead_of_exporting(monkeypatch, bert_folder)
    return FAMILIES["bert"].build()


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def questions(rows: int, length: int, seed: int = 0) -> Batch:
    """Random tokens, the first row padded on the right from its middle."""
    ids = torch.randint(1000, 5000, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, max(1, length // 2) :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def test_a_classifier_answers_as_in_pytorch_at_any_shape_and_number_of_threads(
    minilm: ModelHandle, minilm_folder: Path, num_threads: int
) -> None:
    session: Any = OnnxRuntime().open(minilm_folder, "cpu")
    reference = TorchSession(minilm.model, "cpu")
    for rows, length in ((1, 1), (1, 32), (5, 17), (3, 128)):
        batch = questions(rows, length)
        expected, found = reference(batch), session(batch)
        assert (found - expected).abs().max() < TOLERANCE
        assert (found.argmax(-1) == expected.argmax(-1)).all()
    assert session.deployed.notes["threads"] == num_threads


def test_a_session_says_what_it_runs_and_what_it_took(minilm_folder: Path) -> None:
    session: Any = OnnxRuntime().open(minilm_folder, "cpu")
    assert isinstance(session, SaysWhatItRuns)
    assert isinstance(OnnxRuntime(), RunsFiles)
    deployed = session.deployed
    assert deployed.engine.startswith("onnxruntime 1.")
    assert deployed.precision == "float32"
    assert set(deployed.seconds) == {"export_s", "open_s"}
    assert deployed.num_files_bytes == (minilm_folder / "model.onnx").stat().st_size
    tables = (30522 + 2) * 384 * 4
    assert deployed.weight_bytes is not None
    assert 0 < deployed.num_files_bytes - deployed.weight_bytes - tables < 2_000_000
    use: Any = session.kernels(questions(2, 8))
    assert use.counts["MatMul float32"] == 36
    assert use.counts["MultiHeadAttention float32"] == 6
    assert (use.wanted, use.fallbacks) == ((), ())


def test_what_is_written_into_a_batch_later_is_what_the_engine_reads(minilm_folder: Path) -> None:
    session = OnnxRuntime().open(minilm_folder, "cpu")
    batch = {"input_ids": torch.tensor([[101, 7592, 102]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    before = session(batch).clone()
    batch["input_ids"][0, 1] = 2088
    after, anew = session(batch).clone(), session({name: tensor.clone() for name, tensor in batch.items()})
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, anew)
    session.close()


def test_few_and_small_views_are_kept_so_that_data_does_not_pile_up(minilm_folder: Path) -> None:
    session: Any = OnnxRuntime().open(minilm_folder, "cpu")
    kept = [torch.zeros(8, dtype=torch.int64) for _ in range(600)]
    for tensor in (torch.zeros(1 << 14, dtype=torch.int64), *kept):
        assert session._array(tensor).ctypes.data == tensor.data_ptr()
    held = [tensor for tensor, _ in session._views.values()]
    assert 0 < len(held) <= 256
    assert max(tensor.nbytes for tensor in held) <= 1 << 16
    session.close()


def test_a_batch_without_a_mask_is_read_whole_and_an_unknown_input_is_an_error(minilm_folder: Path) -> None:
    session = OnnxRuntime().open(minilm_folder, "cpu")
    ids = questions(2, 9)["input_ids"].clamp(min=5)
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(session({"input_ids": ids}), session(whole))
    with pytest.raises(UnsupportedError, match="token_type_ids"):
        session({**whole, "token_type_ids": torch.ones_like(ids)})


SLOW = ("gpt2", "mistral", "qwen3", "roberta", "distilbert", "electra")


@pytest.mark.parametrize("family", ["vit", *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)])
def test_other_families_answer_as_in_pytorch(family: str, tmp_path: Path) -> None:
    architecture = FAMILIES[family]
    handle = architecture.build()
    session = exported(handle, tmp_path)
    batch = architecture.batch_for(handle.model)
    if handle.head == "causal-lm":
        batch = {name: tensor.flip(1) for name, tensor in batch.items()}
        expected = TorchSession(handle.model, "cpu").generate(batch, 6)
        assert session.generate(batch, 6).tolist() == expected.tolist()
    else:
        for rows in (4, 1):
            some = {name: tensor[:rows] for name, tensor in batch.items()}
            assert (session(some) - TorchSession(handle.model, "cpu")(some)).abs().max() < TOLERANCE


def test_an_encoder_without_a_head_gives_its_last_hidden_states(tmp_path: Path) -> None:
    from compressbench.testing import tiny_encoder

    handle = tiny_encoder(num_layers=1)
    batch = {name: tensor % 12 for name, tensor in questions(3, 9).items()}
    batch["attention_mask"] = questions(3, 9)["attention_mask"]
    found, expected = exported(handle, tmp_path)(batch), TorchSession(handle.model, "cpu")(batch)
    assert found.shape == (3, 9, 64)
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.slow
def test_weights_in_bfloat16_are_exported_as_float32_and_stay_what_they_were(tmp_path: Path) -> None:
    handle = FAMILIES["bert"].build()
    handle.model.to(torch.bfloat16)
    batch = FAMILIES["bert"].batch_for(handle.model)
    session = exported(handle, tmp_path)
    assert handle.model.dtype == torch.bfloat16
    assert (session(batch) - handle.model.float()(**batch).logits).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("quantize", "kernel"),
    [
        ("int8-dynamic", "DynamicQuantizeMatMul int8"),
        ("int8-static", "MatMulIntegerToFloat int8"),
        ("int8-blocks", "MatMulNBits int8"),
        ("int4", "MatMulNBits int4"),
    ],
)
def test_a_quantized_classifier_runs_quantized_kernels_only(
    quantize: str, kernel: str, bert: ModelHandle, tmp_path: Path
) -> None:
    handle = bert
    session = exported(handle, tmp_path, quantize=quantize)
    batch = FAMILIES["bert"].batch_for(handle.model)
    found, expected = session(batch), TorchSession(handle.model, "cpu")(batch)
    largest = (found - expected).abs().max()
    assert 1e-5 < largest < 0.25 * expected.abs().max()
    use = session.kernels(batch)
    assert use.counts[kernel] > 0
    assert use.fallbacks == ()
    assert session.deployed.precision == "int8"
    assert "quantize_s" in session.deployed.seconds
    assert not (tmp_path / "floats").exists()


def test_what_is_left_out_is_named_and_is_no_fallback(bert: ModelHandle, tmp_path: Path) -> None:
    session = exported(bert, tmp_path, quantize="int8-dynamic", leave_out=["intermediate.dense"])
    use = session.kernels(FAMILIES["bert"].batch_for(bert.model))
    assert use.counts["MatMul float32"] == 2
    assert use.fallbacks == ()
    assert "layer.1.intermediate.dense" in str(session.deployed.notes["left_out"])


def test_a_module_to_leave_out_that_is_not_there_is_an_error(bert: ModelHandle, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no_such_module"):
        exported(bert, tmp_path, quantize="int8-dynamic", leave_out=["no_such_module"])


def test_products_that_stay_in_floats_unasked_are_a_fallback(bert_folder: Path) -> None:
    """A file in floats, opened as if it had been quantized."""
    session: Any = OnnxRuntime(quantize="int8-dynamic").open(bert_folder, "cpu")
    use = session.kernels(FAMILIES["bert"].batches()[0])
    assert "14 products with weights ran in floats though int8 was asked for" in use.fallbacks[0]


def test_static_quantization_without_samples_is_refused(bert: ModelHandle, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(UnsupportedError, match="calibration"):
        exported(replace(bert, supplies=Supplies()), tmp_path, quantize="int8-static")
    with pytest.raises(UnsupportedError, match="int8-dynamic"):
        exported(replace(bert, head="causal-lm"), tmp_path, quantize="int8-static")


@pytest.mark.parametrize("how", ["cut", "changed", "missing"])
def test_a_broken_file_is_an_error(bert_folder: Path, tmp_path: Path, how: str) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(bert_folder, folder)
    path = folder / "model.onnx"
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:-1000] if how == "cut" else whole[:50_000] + b"\x55\x55" + whole[50_002:])
    with pytest.raises(ModelError, match=r"model\.onnx"):
        OnnxRuntime().open(folder, "cpu")


def test_a_file_that_is_no_model_is_an_error_of_the_engine(bert_folder: Path, tmp_path: Path) -> None:
    import shutil

    from compressbench.runtimes.onnx_session import Opening, open_engine

    folder = tmp_path / "copy"
    shutil.copytree(bert_folder, folder)
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="ONNX Runtime can't open"):
        open_engine(folder, Opening("cpu", "all", 1, False))


def test_options_that_do_not_go_together_are_refused_when_a_recipe_is_read() -> None:
    with pytest.raises(ValidationError, match="float16 on the CPU"):
        OnnxRuntime(dtype="float16", provider="cpu")
    with pytest.raises(ValidationError, match="float32 graphs"):
        OnnxRuntime(dtype="float16", quantize="int4")


def test_facts_follow_from_options() -> None:
    assert facts_of(OnnxRuntime()).is_exact
    assert not facts_of(OnnxRuntime(quantize="int4")).is_exact
    assert facts_of(OnnxRuntime(dtype="float16")).devices == {"cuda"}
    assert "speech-seq2seq" not in (facts_of(OnnxRuntime()).heads or ())


def test_a_provider_that_is_not_there_is_refused(bert_folder: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(UnsupportedError, match="no CUDA provider"):
        OnnxRuntime(provider="cuda").open(bert_folder, "cpu")


def test_int8_answers_questions_as_floats_do(
    minilm: ModelHandle, minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default of int8-dynamic agrees on 98.9 % of the 3,080 test questions of Banking77, one scale for all on 97.0."""
    import pyarrow.parquet

    from compressbench.data.embedded_data import embedded_path

    copy_instead_of_exporting(monkeypatch, minilm_folder)
    asked = pyarrow.parquet.read_table(embedded_path("banking77", "test.parquet"))["text"].to_pylist()[::12]
    batch = minilm.tokenizer(asked, padding=True, return_tensors="pt")
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = OnnxRuntime().open(minilm_folder, "cpu")(given).argmax(-1)
    found = exported(minilm, tmp_path, quantize="int8-dynamic")(given).argmax(-1)
    assert (found == expected).float().mean() > 0.97


def test_types_of_tokens_are_left_out_where_they_say_nothing(bert_folder: Path) -> None:
    session: Any = OnnxRuntime().open(bert_folder, "cpu")
    batch = FAMILIES["bert"].batches()[0]
    of_one_sentence = {**batch, "token_type_ids": torch.zeros_like(batch["input_ids"])}
    assert torch.equal(session(of_one_sentence), session(batch))
    with pytest.raises(UnsupportedError, match="token_type_ids"):
        session({**batch, "token_type_ids": torch.ones_like(batch["input_ids"])})
