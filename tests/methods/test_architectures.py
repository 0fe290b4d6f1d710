"""Every method on every architecture family: done, audited, saved and loaded again, or refused when a recipe is planned."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from architectures import FAMILIES, ODD

from compressbench.core.errors import UnsupportedError
from compressbench.core.progress import SilentProgress
from compressbench.core.registry import Resolved, methods
from compressbench.measure.audited import audit
from compressbench.measure.claim_checks import Evidence
from compressbench.measure.compress import apply_steps
from compressbench.methods.distillation.training import hard_loss
from compressbench.models.artefact import load_artefact, read_manifest, save_artefact, write_model
from compressbench.models.blocks import walk
from compressbench.models.config import read_config
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import choose_linears, layer_stacks
from compressbench.models.size import disk_bytes
from compressbench.models.stored_weights import ties
from compressbench.runtimes.torch_eager import TorchEager

SHORT: dict[str, Any] = {"num_epochs": 0.5, "warmup_ratio": 0.0}
WRITTEN: dict[str, Any] = {"prompt_tokens": 4, "max_new_tokens": 2}
NF4: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
ANY = float("inf")
ARCHITECTURES = FAMILIES | ODD


class Use(NamedTuple):
    """A method with options that fit tiny models. `error` bounds the distance to the original's logits, relative to their
    size: wrong computations give more than 1.
    """

    name: str
    options: dict[str, Any]
    error: float = ANY

    @property
    def step(self) -> Any:
        return methods.resolve(self.name)(**self.options)


USES: dict[str, Use] = {
    "cast": Use("cast", {}, 0.03),
    "int8-dynamic": Use("int8-dynamic", {}, 0.1),
    "int8-weight-only": Use("int8-weight-only", {}, 0.05),
    "int4-weight-only": Use("int4-weight-only", {"group_size": 32}, 0.5),
    "rtn": Use("rtn", {"group_size": 32}, 0.5),
    "gptq": Use("gptq", {"group_size": 32}, 0.5),
    "awq": Use("awq", {"group_size": 32, "n_grid": 2}, 0.5),
    "hqq": Use("hqq", {"group_size": 32}, 0.5),
    "smoothquant": Use("smoothquant", {}, 0.1),
    "bnb-int8": Use("bnb-int8", {}, 0.1),
    "bnb-nf4": Use("bnb-nf4", {}, 0.5),
    "bnb-fp4": Use("bnb-fp4", {}, 0.8),
    "torchao": Use("torchao", {"config": "Int8WeightOnlyConfig"}, 0.05),
    "transformers": Use("transformers", {"quantization_config": NF4}, 0.8),
    "magnitude": Use("magnitude", {"sparsity": 0.3, "group": "global"}, 0.8),
    "wanda": Use("wanda", {"sparsity": 0.3}, 0.8),
    "sparsegpt": Use("sparsegpt", {"mask_structure": "2:4"}, 1.0),
    "low-rank": Use("low-rank", {"ratio": 0.3}, 1.0),
    "width-pruning": Use("width-pruning", {"ffn_ratio": 0.5, "importance": "taylor", "num_samples": 8}),
    "width-pruning-heads": Use("width-pruning", {"head_ratio": 0.5}),
    "depth-pruning": Use("depth-pruning", {"num_layers": 1}),
    "depth-pruning-influence": Use("depth-pruning", {"num_layers": 1, "importance": "block-influence"}),
    "logit-distillation": Use("logit-distillation", SHORT, 0.5),
    "hidden-distillation": Use("hidden-distillation", SHORT, 0.5),
    "sequence-distillation": Use("sequence-distillation", {**SHORT, **WRITTEN}, 0.5),
    "gkd": Use("gkd", {**SHORT, **WRITTEN}, 0.5),
    "recover": Use("recover", SHORT, 0.5),
    "recover-lora": Use("recover", {**SHORT, "lora_rank": 4}, 0.5),
}
ELSEWHERE = {"fp8", "semi-structured", "gptqmodel", "llm-compressor", "auto-round"}
"""Methods that need CUDA, or an environment of their own."""
ON_TABLES = {"embedding-quantization", "row-pruning", "rare-row-pruning"}
"""Methods on embeddings: test_embedding_methods.py."""

LANGUAGE_MODELS = {name for name, family in ARCHITECTURES.items() if family.head == "causal-lm"}
OTHERS = ARCHITECTURES.keys() - LANGUAGE_MODELS
REFUSED: Mapping[str, set[str]] = {
    "width-pruning": set(ODD),
    "width-pruning-heads": {"bert", "roberta", "distilbert", "electra", "gpt2", "whisper", *ODD},
    "depth-pruning": {"whisper", "albert", "swin"},
    "depth-pruning-influence": {"whisper", "albert", "swin"},
    "logit-distillation": {"whisper"},
    "hidden-distillation": {"whisper", "swin"},
    "sequence-distillation": OTHERS,
    "gkd": OTHERS,
    "recover": {"whisper"},
    "recover-lora": {"whisper"},
}
CELLS = [(use, family) for use in USES for family in ARCHITECTURES if family not in REFUSED.get(use, ())]
CELLS.remove(("depth-pruning-influence", "modernbert"))  # which layers stay is known when they were measured
BY_BLOCKS = {"gptq", "awq", "smoothquant", "wanda", "sparsegpt", "low-rank"}


def cells(*, half: bool = False) -> list[Any]:
    """(name, family), the slow ones marked: all odd families but where their structure matters, and in half precision
    all but the one that reads sounds.
    """
    found = []
    for name, family in CELLS:
        if half and ("bfloat16" not in USES[name].step.facts.accepts or name == "cast"):
            continue
        is_quick = family == "whisper" if half else family in FAMILIES or (family == "albert" and name in BY_BLOCKS)
        found.append(pytest.param(name, family, id=f"{name}-{family}", marks=() if is_quick else pytest.mark.slow))
    return found


@pytest.fixture(autouse=True, scope="module")
def short_collections() -> Iterator[None]:
    """The profiler leaves so many objects that Python collects garbage all the time: half a second among all modules."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@cache
def original(family: str) -> ModelHandle:
    return ARCHITECTURES[family].build()


@cache
def original_bytes(family: str) -> int:
    return disk_bytes(original(family).model)


@cache
def planned_config(family: str) -> dict[str, Any]:
    """What a plan knows: config.json, which leaves out what is transformers' default."""
    with TemporaryDirectory() as folder:
        write_model(original(family).model, Path(folder))
        return read_config(folder) or {}


def refusal(step: Any, config: dict[str, Any]) -> str:
    """What the method says against a configuration; "" if nothing."""
    try:
        step.check_model(config)
    except UnsupportedError as error:
        return str(error)
    return ""


def test_no_method_is_forgotten() -> None:
    builtin = {name for name in methods.names() if methods.is_builtin(name)}
    assert {use.name for use in USES.values()} | ELSEWHERE | ON_TABLES == builtin


@pytest.mark.parametrize("name", USES)
def test_what_a_method_cannot_do_is_said_when_a_recipe_is_planned(name: str) -> None:
    use = USES[name]
    for family in ARCHITECTURES:
        reason = refusal(use.step, planned_config(family))
        assert bool(reason) == (family in REFUSED.get(name, ())), f"{family}: {reason}"
        assert refusal(use.step, original(family).config) == reason, "loaded, it says of itself what config.json says"
        if reason:
            with pytest.raises(UnsupportedError) as refused:
                apply_steps(original(family), [Resolved(use.name, use.step, use.options)], {}, SilentProgress())
            assert str(refused.value) == reason


@pytest.mark.parametrize(("name", "family"), cells())
def test_a_method_is_done_audited_saved_and_loaded_again(name: str, family: str, tmp_path: Path) -> None:
    check(USES[name], family, original(family).copy(), tmp_path)


@pytest.mark.parametrize(("name", "family"), cells(half=True))
def test_the_same_from_bfloat16(name: str, family: str, tmp_path: Path) -> None:
    check(USES[name], family, USES["cast"].step.apply(original(family).copy()), tmp_path)


TOO_MUCH: list[tuple[Use, set[str]]] = [
    (Use("depth-pruning", {"num_layers": 3}), {*FAMILIES}),
    (Use("depth-pruning", {"keep": (0, 2)}), {*FAMILIES}),
    (Use("width-pruning", {"intermediate_size": 128}), {*FAMILIES} - {"gpt2"}),
    (Use("width-pruning", {"intermediate_size": 256}), {*FAMILIES}),
    (Use("width-pruning", {"num_heads": 4}), {*FAMILIES}),
    (Use("sequence-distillation", {"prompt_tokens": 60, "max_new_tokens": 5}), {*FAMILIES}),
    (Use("gkd", {"prompt_tokens": 60, "max_new_tokens": 5}), {*FAMILIES}),
]


@pytest.mark.parametrize(("use", "families"), TOO_MUCH, ids=[f"{use.name} {use.options}" for use, _ in TOO_MUCH])
def test_more_than_a_model_has_is_refused_when_a_recipe_is_planned(use: Use, families: set[str]) -> None:
    assert {family for family in FAMILIES if refusal(use.step, planned_config(family))} == families


def test_layers_that_cannot_stand_elsewhere_are_refused() -> None:
    """ModernBERT's first layer lacks a norm that the second has: loaded again, it would be another model."""
    with pytest.raises(UnsupportedError, match=r"describes these layers \(got model\.layers\.0\.attn_norm\.weight\)"):
        Use("depth-pruning", {"keep": (1,)}).step.apply(original("modernbert").copy())


def check(use: Use, family: str, handle: ModelHandle, folder: Path) -> None:
    architecture = ARCHITECTURES[family]
    made = use.step.apply(handle)
    found, expected = architecture.logits(made.model), architecture.logits(original(family).model)
    assert bool(found.isfinite().all())
    assert 0 < float((found - expected).norm() / expected.norm()) < use.error
    save_artefact(made, folder, {})
    again = load_artefact(getattr(transformers, architecture.auto_class), folder, read_manifest(folder) or {})
    assert type(again) is type(made.model)
    assert torch.equal(architecture.logits(again), found)
    check_ties(made, family, again)
    check_audit(made, family, folder)


def check_ties(made: ModelHandle, family: str, again: Any) -> None:
    """Tied weights are still tied, in memory and when loaded again, and what they were unless they were trained."""
    before = original(family).model
    assert ties(made.model) == ties(again) == ties(before)
    is_retrained = any(claim.is_retrained for claim in made.claims)
    for name, *_ in ties(before):
        ours, theirs = made.model.get_parameter(name), before.get_parameter(name)
        assert is_retrained or torch.equal(ours, theirs.to(ours.dtype))


def check_audit(made: ModelHandle, family: str, folder: Path) -> None:
    files = [each for each in folder.iterdir() if each.name.startswith(("model", "config", "compressbench.s"))]
    evidence = Evidence(sum(each.stat().st_size for each in files), original_bytes(family))
    session, batch = TorchEager().prepare(made, "cpu"), ARCHITECTURES[family].batch_for(made.model)
    session(batch)
    found = audit(made, original(family), session, batch, evidence)
    assert found.claim_ok, [finding.message for finding in found.false_claims]
    assert found.claims
    assert found.not_checked == ()


def test_tied_families_are_tied_and_untied_ones_are_not() -> None:
    tied = {"gpt2", "llama-tied", "qwen2", "qwen3", "whisper"}
    assert {family for family in FAMILIES if ties(original(family).model)} == tied


HEADS: Mapping[str, set[str]] = {
    "bert": {"bert.pooler.dense", "classifier"},
    "roberta": {"classifier.dense", "classifier.out_proj"},
    "distilbert": {"pre_classifier", "classifier"},
    "electra": {"classifier.dense", "classifier.out_proj"},
    "vit": {"classifier"},
    "whisper": {"proj_out"},
    **{name: {"lm_head"} for name in LANGUAGE_MODELS},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_modules_but_heads_are_chosen_and_lie_in_layers_that_are_walked(family: str) -> None:
    model = original(family).model
    choice = choose_linears(model)
    assert set(choice.left_out) == HEADS[family]
    stacks = tuple(f"{name}." for name, _ in layer_stacks(model))
    outside = [name for name in choice.modules if not name.startswith(stacks)]
    assert outside == (["electra.embeddings_project"] if family == "electra" else [])
    blocks = {block.name for block in walk(model, ARCHITECTURES[family].batches(), list(choice.modules))}
    layers = {f"{stack}{index}" for stack in stacks for index in range(2)}
    assert blocks == layers | ({""} if outside else set())


def test_a_head_of_its_own_is_left_alone_whatever_its_name() -> None:
    whisper = ARCHITECTURES["whisper"]
    untied = replace(whisper, options={**whisper.options, "tie_word_embeddings": False}).build().model
    assert ties(untied) == []
    assert choose_linears(untied).left_out == {"proj_out": "an output head"}
    assert set(choose_linears(untied, ["proj_out"]).modules) == {"proj_out"}


ON_IMAGES: Mapping[str, dict[str, Any]] = {
    "logit-distillation": {},
    "hidden-distillation": {"attention_weight": 0.0, "logit_weight": 0.0},
    "recover": {},
}


@pytest.mark.parametrize("name", ON_IMAGES)
def test_images_are_learned(name: str) -> None:
    step = methods.resolve(name)
    options = {**ON_IMAGES[name], "precision": "float32", "learning_rate": 3e-3, "warmup_ratio": 0.0}
    begun, done = (
        float(step(**options, num_epochs=epochs).apply(original("vit").copy()).notes["last_loss"])
        for epochs in (0.5, 20)
    )
    assert 0 < done < begun / 2


def test_a_copy_of_its_teacher_has_nothing_to_learn_from_images() -> None:
    handle = original("vit").copy()
    supplies = replace(handle.supplies, teacher=lambda: original("vit").copy())
    made = methods.resolve("hidden-distillation")(**SHORT, precision="float32").apply(
        replace(handle, supplies=supplies)
    )
    assert float(made.notes["last_loss"]) < 1e-9


def test_labels_of_an_encoder_decoder_stand_where_it_predicts_them() -> None:
    """Why training refuses it: the loss of a language model looks one position earlier."""
    whisper = ARCHITECTURES["whisper"]
    lesson = whisper.lessons()[0]
    with torch.no_grad():
        output = original("whisper").model(**lesson)
    own = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), lesson["labels"].flatten())
    assert torch.allclose(output.loss, own)
    assert not torch.allclose(output.loss, hard_loss(lesson["labels"], output.logits), rtol=1e-3)
