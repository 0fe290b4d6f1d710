"""Walking a model block by block shows what the whole model would show, and later blocks see earlier changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from compressbench.core.errors import UnsupportedError
from compressbench.models.blocks import Block, rows_of, walk
from compressbench.models.parts import layer_stacks, matrix, target_linears
from compressbench.testing import tiny_causal_lm, tiny_classifier

Made = tuple[nn.Module, list[dict[str, Any]]]


def padded_tokens(seed: int = 0, vocabulary: int = 19) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for length in (7, 5):
        ids = torch.randint(4, vocabulary, (3, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, length - 2 :] = 0
        batches.append({"input_ids": ids, "attention_mask": mask})
    return batches


def bert() -> Made:
    return tiny_classifier(num_layers=3).model, padded_tokens()


def llama() -> Made:
    return tiny_causal_lm().model, padded_tokens()


def gpt2() -> Made:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=19, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=2, eos_token_id=3)
    return GPT2LMHeadModel(config).eval(), padded_tokens()


def albert() -> Made:
    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=19, embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16,
    )  # fmt: skip
    return AlbertForSequenceClassification(config).eval(), padded_tokens()


def vit() -> Made:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4,
        num_channels=1,
    )  # fmt: skip
    return ViTForImageClassification(config).eval(), [{"pixel_values": torch.randn(2, 1, 8, 8)}]


def whisper() -> Made:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=19, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8, max_source_positions=10,
        max_target_positions=16, pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2,
    )  # fmt: skip
    ids = torch.randint(4, 19, (2, 6))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    inputs = {
        "input_features": torch.randn(2, 8, 20),
        "decoder_input_ids": ids,
        "decoder_attention_mask": mask,
    }
    return WhisperForConditionalGeneration(config).eval(), [inputs]


MODELS = (bert, llama, gpt2, albert, vit, whisper)


def gram_by_walking(model: nn.Module, batches: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    grams: dict[str, torch.Tensor] = {}

    def watcher(name: str) -> Callable[[torch.Tensor], None]:
        def add(rows: torch.Tensor) -> None:
            gram = rows.double().T @ rows.double()
            grams[name] = gram if name not in grams else grams[name] + gram

        return add

    for block in walk(model, batches, list(target_linears(model))):
        block.observe({name: watcher(name) for name in block.names})
    return grams


def gram_by_hooks(model: nn.Module, batches: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The same through the whole model at once, padding cut out by hand."""
    grams: dict[str, torch.Tensor] = {}
    mask: torch.Tensor | None = None

    def hook(name: str, x: torch.Tensor) -> None:
        rows = x.detach().double()
        if mask is not None and x.shape[:2] == mask.shape:
            rows = torch.cat([row[: int(keep.sum())] for row, keep in zip(rows, mask, strict=True)])
        rows = rows.reshape(-1, x.shape[-1])
        grams[name] = grams.get(name, torch.zeros(1)) + rows.T @ rows

    for name, module in target_linears(model).items():
        module.register_forward_pre_hook(lambda _, args, name=name: hook(name, args[0]))
    for batch in batches:
        mask = batch.get("attention_mask", batch.get("decoder_attention_mask"))
        with torch.no_grad():
            model(**batch)
    return grams


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_every_module_sees_the_inputs_that_the_whole_model_gives_it(make: Callable[[], Made]) -> None:
    model, batches = make()
    found = gram_by_walking(model, batches)
    expected = gram_by_hooks(*make()[:1], batches)
    assert found.keys() == expected.keys()
    for name, gram in expected.items():
        assert torch.allclose(found[name], gram, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize(
    ("make", "stacks"),
    [
        (bert, {"bert.encoder.layer": 3}),
        (llama, {"model.layers": 3}),
        (gpt2, {"transformer.h": 2}),
        (whisper, {"model.encoder.layers": 2, "model.decoder.layers": 2}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_blocks_are_found_by_structure(make: Callable[[], Made], stacks: dict[str, int]) -> None:
    model, batches = make()
    assert {name: len(stack) for name, stack in layer_stacks(model)} == stacks
    walked = [block.name for block in walk(model, batches, list(target_linears(model)))]
    assert walked == [f"{name}.{index}" for name, count in stacks.items() for index in range(count)]


def test_blocks_that_are_used_more_than_once_are_walked_as_one() -> None:
    model, batches = albert()
    assert [block.name for block in walk(model, batches, list(target_linears(model)))] == [""]


@pytest.mark.parametrize("make", [bert, llama, gpt2], ids=lambda make: make.__name__)
def test_a_later_block_is_fed_through_the_changed_earlier_ones(make: Callable[[], Made]) -> None:
    model, batches = make()
    changed, _ = make()
    names = list(target_linears(model))
    for block in walk(model, batches, names):
        for name in block.names:
            matrix(model.get_submodule(name)).mul_(0.5)
        last = list(block.outputs())
    for module in target_linears(changed).values():
        matrix(module).mul_(0.5)
    expected = last_block_of(changed, batches, names)
    for ours, theirs in zip(last, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def last_block_of(model: nn.Module, batches: list[dict[str, Any]], names: list[str]) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    stack = layer_stacks(model)[0][1]
    stack[-1].register_forward_hook(
        lambda _, __, output: outputs.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    with torch.no_grad():
        for batch in batches:
            model(**batch, use_cache=False) if names else None
    return outputs


@pytest.mark.parametrize(
    ("make", "groups"),
    [
        (bert, [["query", "key", "value"], ["dense"], ["dense"], ["dense"]]),
        (llama, [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]),
        (gpt2, [["c_attn"], ["c_proj"], ["c_fc"], ["c_proj"]]),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_modules_that_read_the_same_tensor_form_a_group_in_the_order_they_run(
    make: Callable[[], Made], groups: list[list[str]]
) -> None:
    model, batches = make()
    block = next(walk(model, batches, list(target_linears(model))))
    assert [[name.rpartition(".")[2] for name in group] for group in block.groups()] == groups


def test_padding_never_enters_a_statistic() -> None:
    x = torch.arange(24.0).view(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    expected = torch.stack([x[0, 0], x[0, 1], x[1, 0]])
    assert torch.equal(rows_of(x, mask), expected)
    assert torch.equal(rows_of(x.view(6, 4), mask), expected), "tokens in one row, as experts see them"
    assert len(rows_of(x, None)) == 6
    assert len(rows_of(torch.zeros(2, 4), mask)) == 2, "one pooled vector per sentence has no padding"


def test_what_stands_in_padded_places_makes_no_difference() -> None:
    model, batches = bert()
    other = [{**batch, "input_ids": batch["input_ids"].clone()} for batch in batches]
    for batch in other:
        batch["input_ids"][batch["attention_mask"] == 0] = 7
    ours, theirs = gram_by_walking(model, batches), gram_by_walking(model, other)
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5) for name in ours)


def test_the_models_own_setting_for_its_cache_comes_back() -> None:
    model, batches = llama()
    model.config.use_cache = True  # type: ignore[union-attr]
    list(walk(model, batches, list(target_linears(model))))
    assert model.config.use_cache is True  # type: ignore[union-attr]


def test_nothing_to_calibrate_on_is_an_error() -> None:
    model, _ = bert()
    with pytest.raises(UnsupportedError, match="not a single batch"):
        next(walk(model, [], list(target_linears(model))))


def test_a_head_that_was_chosen_comes_last_with_the_whole_model_as_its_block() -> None:
    model, batches = bert()
    blocks: list[Block] = list(walk(model, batches, ["classifier", "bert.encoder.layer.0.intermediate.dense"]))
    assert [(block.name, block.names) for block in blocks] == [
        ("bert.encoder.layer.0", ["bert.encoder.layer.0.intermediate.dense"]),
        ("", ["classifier"]),
    ]
    rows: list[torch.Tensor] = []
    blocks[-1].observe({"classifier": rows.append})
    assert [len(each) for each in rows] == [3, 3], "one row per sentence"
