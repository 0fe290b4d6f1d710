from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch, Trains
from compressbench.methods.pruning.width_pruning import WidthPruning
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.parts import matrix
from compressbench.models.quiet import quiet
from compressbench.models.size import count_weights
from compressbench.models.widths import Coupled, couplings, cut
from compressbench.testing import tiny_causal_lm, tiny_classifier

TEXT = {
    "vocab_size": 19, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "Qwen2ForCausalLM": TEXT,
    "Qwen3ForCausalLM": {**TEXT, "head_dim": 8},
    "MistralForCausalLM": TEXT,
    "GPT2LMHeadModel": {
        "vocab_size": 19, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 2,
        "eos_token_id": 3, "n_inner": 64,
    },
    "ViTForImageClassification": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8,
        "patch_size": 4,
    },
    "WhisperForConditionalGeneration": {
        "vocab_size": 19, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 8,
        "max_source_positions": 8, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
        "decoder_start_token_id": 2,
    },
}  # fmt: skip
KINDS = ("BertForSequenceClassification", "LlamaForCausalLM", *OTHERS)
WITH_HEADS = [kind for kind in KINDS if not kind.startswith(("Bert", "GPT2", "Whisper"))]


def handle_of(kind: str) -> ModelHandle:
    """Weights large enough that every group leaves its mark on the logits, and biases that are not zero."""
    handle = tiny_classifier() if kind == "BertForSequenceClassification" else tiny_causal_lm(num_layers=2)
    torch.manual_seed(1)
    if kind in OTHERS:
        made = getattr(transformers, kind)
        with quiet():
            handle = replace(
                handle, model=made(made.config_class(**OTHERS[kind])).eval(), head=HEADS.get(kind, "causal-lm")
            )
    with torch.no_grad():
        for name, parameter in handle.model.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter) if "norm" not in name.lower() else 0.0)
    return replace(handle, supplies=Supplies(training_batches=lambda *_: samples_for(handle)))


HEADS = {"ViTForImageClassification": "image-classification", "WhisperForConditionalGeneration": "speech-to-text"}


def samples_for(handle: ModelHandle, batch_size: int = 2) -> list[Batch]:
    """Five samples with labels. Texts are padded at the end; padding has the label -100."""
    generator = torch.Generator().manual_seed(3)
    classes = torch.tensor([0, 1, 1, 0, 1])
    if handle.head == "image-classification":
        rows: dict[str, torch.Tensor] = {
            "pixel_values": torch.randn(5, 3, 8, 8, generator=generator),
            "labels": classes,
        }
    elif handle.head == "speech-to-text":
        sounds = torch.randn(5, 8, 16, generator=generator)
        rows = {"input_features": sounds, "labels": torch.randint(4, 19, (5, 6), generator=generator)}
    else:
        ids = torch.randint(4, 19, (5, 10), generator=generator)
        mask = (torch.arange(10) < torch.tensor([10, 4, 7, 9, 3])[:, None]).long()
        is_classifier = handle.head == "sequence-classification"
        rows = {"input_ids": ids * mask, "attention_mask": mask}
        rows["labels"] = classes if is_classifier else ids.masked_fill(mask == 0, -100)
    parts = [range(5)[start : start + batch_size] for start in range(0, 5, batch_size)]
    return [{name: tensor[list(part)] for name, tensor in rows.items()} for part in parts]


def logits(handle: ModelHandle) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = torch.cat([handle.model(**batch).logits for batch in samples_for(handle, batch_size=5)])
    return found


def pruned(handle: ModelHandle, **options: Any) -> ModelHandle:
    return WidthPruning(**options).apply(handle.copy())


def groups_of(handle: ModelHandle, is_attention: bool) -> list[Coupled]:
    config = handle.config
    keys = {"num_key_value_heads" if config.get("num_key_value_heads") else "num_attention_heads"}
    if not is_attention:
        keys = {"intermediate_size", "n_inner", "encoder_ffn_dim", "decoder_ffn_dim"}
    return couplings(handle.model, keys)


def weights_of(coupled: Coupled, group: int) -> list[torch.Tensor]:
    """Views of all that belongs to one group, in the order of the parts, by plain slices."""
    views = []
    for part in coupled.parts:
        run = slice(group * part.block, (group + 1) * part.block)
        views.append(matrix(part.module)[run] if part.is_output else matrix(part.module)[:, run])
        if part.is_output and part.module.bias is not None:
            views.append(part.module.bias.detach()[run])  # type: ignore[operator]
    return views


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give head_ratio or num_heads, or ffn_ratio or intermediate_size"),
        ({"head_ratio": 0.5, "num_heads": 2}, "either head_ratio or num_heads"),
        ({"ffn_ratio": 0.5, "intermediate_size": 2}, "either ffn_ratio or intermediate_size"),
        ({"ffn_ratio": 1.0}, "less than 1"),
        ({"head_ratio": 0.0}, "greater than 0"),
        ({"ffn_ratio": 0.5, "importance": "random"}, "'magnitude' or 'taylor'"),
        ({"intermediate_size": 30, "round_to": 4}, "round_to belongs to ffn_ratio"),
        ({"ffn_ratio": 0.5, "num_samples": 4}, "belong to importance: taylor"),
        ({"ffn_ratio": 0.5, "round_to": 0}, "greater than or equal to 1"),
    ],
)
def test_an_amount_is_given_once(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        WidthPruning(**options)


def cases() -> list[tuple[str, bool, str]]:
    ways = ("magnitude", "taylor")
    neurons = [(kind, False, way) for kind in KINDS for way in ways]
    return neurons + [(kind, True, way) for kind in WITH_HEADS for way in ways]


@pytest.mark.parametrize(("kind", "is_attention", "importance"), cases())
def test_a_dead_group_is_the_one_that_goes_and_leaves_no_trace(kind: str, is_attention: bool, importance: str) -> None:
    handle, dead = handle_of(kind), {}
    for number, coupled in enumerate(groups_of(handle, is_attention)):
        dead[coupled.parts[-1].name] = (3 * number + 1) % coupled.num_groups
        views = weights_of(coupled, dead[coupled.parts[-1].name])
        for view in views if importance == "magnitude" else views[-1:]:  # without a way out, the gradient is zero too
            view.zero_()
    before = groups_of(handle, is_attention)
    options = {"intermediate_size": before[0].num_groups - 1}
    if is_attention:
        num_heads: int = handle.model.config.num_attention_heads
        options = {"num_heads": num_heads - num_heads // before[0].num_groups}
    done = pruned(handle, importance=importance, **options)
    torch.testing.assert_close(logits(done), logits(handle), rtol=0, atol=5e-6)  # sums are taken in another order
    for old, new in zip(before, groups_of(done, is_attention), strict=True):
        staying = [index for index in range(old.num_groups) if index != dead[old.parts[-1].name]]
        for position, group in enumerate(staying):
            pairs = zip(weights_of(old, group), weights_of(new, position), strict=True)
            assert all(torch.equal(was, now) for was, now in pairs)


@pytest.mark.parametrize(
    ("kind", "is_attention"), [(kind, False) for kind in KINDS] + [(kind, True) for kind in WITH_HEADS]
)
def test_a_living_group_can_not_go_without_a_trace(kind: str, is_attention: bool) -> None:
    handle = handle_of(kind)
    other = handle.copy()
    for coupled in groups_of(other, is_attention):
        for part in coupled.parts:
            cut(part, torch.arange(1, coupled.num_groups))
    assert (logits(other) - logits(handle)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_importances_equal_those_of_one_loop_over_the_groups(kind: str) -> None:
    handle = handle_of(kind)
    batch = samples_for(handle, batch_size=5)[0]
    handle.model.requires_grad_(True)
    handle.model(**batch).loss.backward()
    for is_attention in (False, True) if kind in WITH_HEADS else (False,):
        coupled = groups_of(handle, is_attention)
        for importance in ("magnitude", "taylor"):
            step = WidthPruning(ffn_ratio=0.5, importance=importance)
            for layer, found in zip(coupled, step.importances(handle, coupled), strict=True):
                expected = torch.stack([_one_importance(layer, group, importance) for group in range(layer.num_groups)])
                torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-6)


def _one_importance(coupled: Coupled, group: int, importance: str) -> torch.Tensor:
    weights = torch.cat([view.flatten() for view in weights_of(coupled, group)])
    if importance == "magnitude":
        return (weights * weights).sum().sqrt()
    slopes = []
    for part in coupled.parts:
        module: Any = part.module
        run = slice(group * part.block, (group + 1) * part.block)
        slope = module.weight.grad.T if type(module).__name__ == "Conv1D" else module.weight.grad
        slopes.append((slope[run] if part.is_output else slope[:, run]).flatten())
        if part.is_output and module.bias is not None:
            slopes.append(module.bias.grad[run].flatten())
    return (weights * torch.cat(slopes)).abs().sum()


@pytest.mark.parametrize(
    "kind", ["BertForSequenceClassification", "LlamaForCausalLM", "WhisperForConditionalGeneration"]
)
def test_taylor_does_not_depend_on_how_samples_are_batched(kind: str) -> None:
    handle, found = handle_of(kind), []
    step = WidthPruning(ffn_ratio=0.5, importance="taylor")
    for size in (1, 2, 3, 5):
        batches = samples_for(handle, batch_size=size)
        supplied = replace(handle, supplies=Supplies(training_batches=lambda *_, batches=batches: batches))
        found.append(torch.stack(step.importances(supplied, groups_of(handle, False))))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=2e-3, atol=1e-6)
    assert handle.model.training is False
    assert all(parameter.grad is None for parameter in handle.model.parameters())


def test_taylor_asks_for_its_samples_and_leaves_what_is_trained_as_it_was() -> None:
    handle, asked = handle_of("LlamaForCausalLM"), list[tuple[int, int | None, int]]()

    def source(batch_size: int, num_samples: int | None, seed: int) -> Sequence[Batch]:
        asked.append((batch_size, num_samples, seed))
        return samples_for(handle)

    handle = replace(handle, supplies=Supplies(training_batches=source, seed=7))
    handle.model.requires_grad_(False)
    done = pruned(handle, ffn_ratio=0.5, importance="taylor", num_samples=40, batch_size=4)
    assert asked == [(4, 40, 7)]
    assert not any(parameter.requires_grad for parameter in done.model.parameters())
    step: Any = WidthPruning(ffn_ratio=0.5, importance="taylor", num_samples=40)
    assert isinstance(step, Trains)
    assert (step.num_training_samples(1000), step.num_training_samples(7)) == (40, 7)
    assert WidthPruning(ffn_ratio=0.5).num_training_samples(1000) == 0


def test_taylor_without_what_it_needs_is_refused() -> None:
    handle = handle_of("LlamaForCausalLM")
    with pytest.raises(UnsupportedError, match="needs training data"):
        pruned(replace(handle, supplies=Supplies()), ffn_ratio=0.5, importance="taylor")
    with pytest.raises(CellError, match="no label"):
        pruned(replace(handle, supplies=Supplies(training_batches=lambda *_: [])), ffn_ratio=0.5, importance="taylor")
    with torch.no_grad():
        handle.model.lm_head.weight.fill_(float("inf"))
    with pytest.raises(CellError, match="the loss became nan"):
        pruned(handle, ffn_ratio=0.5, importance="taylor")


def llama_parameters(neurons: int, heads: int, groups: int) -> int:
    """Two layers of the tiny Llama: 19 words, hidden size 64, heads of 16."""
    layer = 2 * 64 * heads * 16 + 2 * 64 * groups * 16 + 3 * 64 * neurons + 2 * 64
    return 19 * 64 + 2 * layer + 64


def bert_parameters(neurons: int) -> int:
    """Two layers of the tiny BERT classifier: 19 words, 64 positions, 2 segments, hidden size 64, 3 labels."""
    layer = 4 * (64 * 64 + 64) + 64 * neurons + neurons + neurons * 64 + 64 + 2 * 2 * 64
    return (19 + 64 + 2) * 64 + 2 * 64 + 2 * layer + 64 * 64 + 64 + 64 * 3 + 3


def test_the_number_of_parameters_is_that_of_the_formula() -> None:
    llama, bert = handle_of("LlamaForCausalLM"), handle_of("BertForSequenceClassification")
    assert count_weights(llama.model).num_parameters == llama_parameters(128, 4, 2)
    assert count_weights(bert.model).num_parameters == bert_parameters(128)
    for options, expected in (
        ({"ffn_ratio": 0.25}, llama_parameters(96, 4, 2)),
        ({"head_ratio": 0.5}, llama_parameters(128, 2, 1)),
        ({"intermediate_size": 33, "num_heads": 2}, llama_parameters(33, 2, 1)),
    ):
        done = pruned(llama, **options)
        assert count_weights(done.model).num_parameters == done.model.num_parameters() == expected
        assert done.notes["num_parameters"] == expected
        assert done.notes["num_parameters_before"] == llama_parameters(128, 4, 2)
    assert count_weights(pruned(bert, ffn_ratio=0.5).model).num_parameters == bert_parameters(64)
    assert llama.config["intermediate_size"] == 128, "the model that was copied stays as it was"


def test_the_configuration_the_notes_and_the_claim_say_what_was_done() -> None:
    done = pruned(handle_of("LlamaForCausalLM"), ffn_ratio=0.25, head_ratio=0.5)
    wanted = {"intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    assert {key: done.config[key] for key in wanted} == wanted
    assert done.config["hidden_size"] == 64
    before = {"intermediate_size_before": 128, "num_key_value_heads_before": 2}
    assert done.notes.items() >= (wanted | before).items()
    (claim,) = done.claims
    assert (claim.step, claim.is_smaller) == ("width-pruning", True)
    assert len(claim.modules) == 2 * 7
    for name in claim.modules:
        assert (
            done.model.get_submodule(name).weight.numel()
            < handle_of("LlamaForCausalLM").model.get_submodule(name).weight.numel()
        )
    image = pruned(handle_of("ViTForImageClassification"), head_ratio=0.5, ffn_ratio=0.5)
    assert (image.config["num_attention_heads"], image.config["head_dim"], image.config["intermediate_size"]) == (
        2,
        8,
        32,
    )
    speech = pruned(handle_of("WhisperForConditionalGeneration"), ffn_ratio=0.5)
    assert (speech.config["encoder_ffn_dim"], speech.config["decoder_ffn_dim"]) == (32, 32)


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_narrow_model_is_saved_and_loaded_like_any_other(kind: str, importance: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"ffn_ratio": 0.4}
    if kind in WITH_HEADS:
        options["head_ratio"] = 0.5
    done = pruned(handle_of(kind), importance=importance, **options)
    with quiet():
        done.model.save_pretrained(tmp_path)
        loaded, info = type(done.model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.num_parameters() == done.model.num_parameters()
    assert torch.equal(logits(replace(done, model=loaded.eval())), logits(done))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith(("CausalLM", "LMHeadModel"))])
def test_generation_with_a_cache_equals_generation_without(kind: str) -> None:
    options = {"ffn_ratio": 0.5} if kind.startswith("GPT2") else {"ffn_ratio": 0.5, "head_ratio": 0.5}
    model = pruned(handle_of(kind), **options).model
    prompt = {"input_ids": torch.tensor([[4, 9, 7], [12, 5, 6]]), "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    given = {**prompt, "do_sample": False, "min_new_tokens": 12, "max_new_tokens": 12, "pad_token_id": 0}
    cached = model.generate(**given)
    assert torch.equal(cached, model.generate(**given, use_cache=False))
    assert len(set(cached[:, 3:].flatten().tolist())) > 2, "one token over and over would prove little"
    with torch.no_grad():
        remembered = model(input_ids=cached, use_cache=True).past_key_values
    assert remembered.layers[1].keys.shape[1] == (4 if kind.startswith("GPT2") else model.config.num_key_value_heads)


@pytest.mark.parametrize(
    ("ratio", "round_to", "expected"),
    [
        (0.25, 8, 96),
        (0.3, 8, 96),
        (0.3, 1, 90),
        (0.3, 16, 96),
        (0.3, 64, 128),
        (0.9, 8, 16),
        (0.5, 50, 100),
        (0.99, 1, 2),
    ],
)
def test_neurons_that_stay_are_rounded_up(ratio: float, round_to: int, expected: int) -> None:
    step = WidthPruning(ffn_ratio=ratio, round_to=round_to)
    config = {"model_type": "llama", "intermediate_size": 128}
    if expected == 128:
        with pytest.raises(UnsupportedError, match="none would be removed"):
            step.changes(config)
    else:
        assert step.changes(config) == {"intermediate_size": expected}


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_what_goes_at_one_ratio_goes_at_every_larger_one(importance: str) -> None:
    handle = handle_of("Qwen3ForCausalLM")
    seen = _neurons_by_layer(handle)
    assert [len(neurons) for neurons in seen] == [64, 64]
    for ratio in (0.125, 0.25, 0.5, 0.75, 0.875):
        now = _neurons_by_layer(pruned(handle, ffn_ratio=ratio, importance=importance))
        assert [len(neurons) for neurons in now] == [64 * (1 - ratio)] * 2
        assert all(inner < outer for inner, outer in zip(now, seen, strict=True))
        seen = now


def _neurons_by_layer(handle: ModelHandle) -> list[set[tuple[float, ...]]]:
    """Each neuron as the weights with which it reads."""
    layers = groups_of(handle, is_attention=False)
    return [{tuple(row) for row in matrix(layer.parts[0].module).tolist()} for layer in layers]


LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 128,
}


@pytest.mark.parametrize(
    ("options", "config", "complaint"),
    [
        ({"head_ratio": 0.5}, {"model_type": "bert"}, "derives the size of a head.*ffn_ratio"),
        ({"num_heads": 2}, {"model_type": "gpt2"}, "derives the size of a head"),
        ({"ffn_ratio": 0.5}, {"model_type": "t5"}, "not known how to make this kind"),
        ({"head_ratio": 0.2}, LLAMA, "a layer has 4 key-value heads, and none would be removed"),
        ({"num_heads": 3}, LLAMA, "groups of 2.*got num_heads 3.*multiple of 2"),
        ({"num_heads": 8}, LLAMA, "none would be removed"),
        ({"num_heads": 6}, LLAMA, r"divides hidden_size 64 \(got 6 heads to keep\). Set num_heads to one of \[2, 4\]"),
        ({"head_ratio": 0.25}, LLAMA, "divides hidden_size 64"),
        ({"intermediate_size": 128}, LLAMA, r"128 neurons \(intermediate_size\), and none would be removed"),
    ],
)
def test_what_cannot_be_is_refused_when_a_recipe_is_planned(
    options: dict[str, Any], config: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UnsupportedError, match=complaint):
        WidthPruning(**options).check_model(config)


def test_what_a_configuration_does_not_say_is_asked_again_when_it_is_applied() -> None:
    for config in ({}, {"model_type": "llama"}):
        WidthPruning(ffn_ratio=0.5, head_ratio=0.5).check_model(config)
    for options in ({"head_ratio": 0.5}, {"num_heads": 2}):
        with pytest.raises(UnsupportedError, match="derives the size of a head"):
            pruned(handle_of("BertForSequenceClassification"), **options)
    config = transformers.OPTConfig(
        vocab_size=19, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16
    )
    with quiet(), pytest.raises(UnsupportedError, match=r"not known how to make.*got model_type opt"):
        pruned(replace(handle_of("LlamaForCausalLM"), model=transformers.OPTForCausalLM(config)), ffn_ratio=0.5)
