"""Methods that look at samples, on whole models: what they see, what they leave, and that they beat those that don't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.errors import UnsupportedError
from compressbench.core.registry import methods
from compressbench.methods.maths.gptq import gptq
from compressbench.methods.maths.masks import keep_largest_per_row
from compressbench.methods.maths.uniform import Grid, rtn
from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.low_rank_linear import LowRankLinear
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.parts import bias_of, matrix, target_linears
from compressbench.models.size import count_weights
from compressbench.testing import tiny_causal_lm, tiny_classifier


def samples(seed: int = 0, batches: int = 3) -> CalibrationSet:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(batches):
        ids = torch.randint(4, 19, (4, 12), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, 9:] = 0
        found.append({"input_ids": ids, "attention_mask": mask})
    return CalibrationSet(found, "made", "train", "0", 4 * batches, 45 * batches, seed)


def supplied(handle: ModelHandle) -> ModelHandle:
    return replace(handle, supplies=Supplies(calibration=lambda _: samples()))


def bert() -> ModelHandle:
    return supplied(tiny_classifier())


def llama() -> ModelHandle:
    return supplied(tiny_causal_lm(num_layers=2))


def gpt2() -> ModelHandle:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=19, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=2, eos_token_id=3)
    return replace(llama(), model=GPT2LMHeadModel(config).eval())


MODELS: list[Callable[[], ModelHandle]] = [bert, llama, gpt2]
PACKING: dict[str, dict[str, Any]] = {
    "rtn": {"bits": 4, "group_size": 32},
    "gptq": {"bits": 4, "group_size": 32},
    "awq": {"bits": 4, "group_size": 32, "n_grid": 4},
    "hqq": {"nbits": 4, "group_size": 32},
}
PRUNING: dict[str, dict[str, Any]] = {
    "magnitude": {"sparsity": 0.5},
    "wanda": {"sparsity": 0.5},
    "sparsegpt": {"sparsity": 0.5},
}
OTHERS: dict[str, dict[str, Any]] = {"smoothquant": {}, "low-rank": {"ratio": 0.3}}


def applied(name: str, handle: ModelHandle, **options: Any) -> ModelHandle:
    made: ModelHandle = methods.resolve(name)(**options).apply(handle)
    return made


def logits(handle: ModelHandle) -> torch.Tensor:
    batch = samples(seed=7, batches=1).batches[0]
    with torch.inference_mode():
        found: torch.Tensor = handle.model(**batch).logits
    return found


def distance(one: ModelHandle, other: ModelHandle) -> float:
    return float((logits(one) - logits(other)).square().mean())


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", [*PACKING, *PRUNING, *OTHERS])
def test_every_method_takes_encoders_and_decoders(name: str, make: Callable[[], ModelHandle]) -> None:
    options: dict[str, Any] = {**PACKING, **PRUNING, **OTHERS}[name]
    made = applied(name, make(), **options)
    assert bool(logits(made).isfinite().all())
    assert 0 < distance(made, make()) < float(logits(make()).square().mean())
    claim = made.claims[-1]
    assert claim.step == name
    assert set(claim.modules) <= {module for module, _ in made.model.named_modules()}
    assert "calibration" in made.notes or name in ("rtn", "hqq", "magnitude")


@pytest.mark.parametrize("name", [*PACKING, *PRUNING, *OTHERS])
def test_a_method_gives_the_same_model_twice(name: str) -> None:
    options: dict[str, Any] = {**PACKING, **PRUNING, **OTHERS}[name]
    assert torch.equal(logits(applied(name, bert(), **options)), logits(applied(name, bert(), **options)))


@pytest.mark.parametrize("name", PACKING)
def test_more_bits_are_closer_to_the_baseline(name: str) -> None:
    key = "nbits" if name == "hqq" else "bits"
    options = {option: value for option, value in PACKING[name].items() if option not in ("bits", "nbits")}
    far, near, nearest = (distance(applied(name, bert(), **{key: bits}, **options), bert()) for bits in (2, 4, 8))
    assert nearest < near < far


@pytest.mark.parametrize("name", PACKING)
def test_low_bits_are_really_packed_and_the_head_is_left_alone(name: str) -> None:
    plain, made = bert(), applied(name, bert(), **PACKING[name])
    packed = {each: module for each, module in made.model.named_modules() if isinstance(module, PackedLinear)}
    assert packed.keys() == target_linears(plain.model).keys()
    for module in packed.values():
        assert module.packed.nbytes * 8 == 4 * module.num_weights
        assert module.scale.nbytes * 8 == 16 * module.num_weights // 32
    assert torch.equal(made.model.classifier.weight, plain.model.classifier.weight)
    saved = count_weights(plain.model).num_bytes - count_weights(made.model).num_bytes
    weights = sum(module.num_weights for module in packed.values())
    assert saved > (32 - 4 - 1.5) / 8 * weights


def through(handle: ModelHandle, name: str) -> torch.Tensor:
    """The rows that module `name` sees in the calibration samples, by a hook on the whole model, padding cut out."""
    rows: list[torch.Tensor] = []
    with torch.inference_mode():
        for batch in samples().batches:
            hook = handle.model.get_submodule(name).register_forward_pre_hook(
                lambda _, args, mask=batch["attention_mask"]: rows.append(args[0][mask.bool()])
            )
            handle.model(**batch)
            hook.remove()
    return torch.cat(rows)


def test_gptq_sees_what_the_already_quantized_model_gives() -> None:
    """The last module of the second layer, quantized again from inputs of the model in which all before it are packed."""
    last = "bert.encoder.layer.1.output.dense"
    made = applied("gptq", bert(), bits=3, group_size=32)
    rows = through(made, last)
    weight = matrix(bert().model.get_submodule(last))
    expected = gptq(weight, 2 / len(rows) * rows.T @ rows, Grid(3, 32)).quantized.dequantize()
    found = made.model.get_submodule(last).dequantized()
    assert float((found == expected).float().mean()) > 0.99, "sums in another order may round a weight differently"
    from_plain = through(bert(), last)
    other = gptq(weight, 2 / len(from_plain) * from_plain.T @ from_plain, Grid(3, 32)).quantized.dequantize()
    assert float((found == other).float().mean()) < 0.99


def test_wanda_prunes_by_the_inputs_of_the_already_pruned_model() -> None:
    made = applied("wanda", bert(), sparsity=0.5)
    for name in ("bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.attention.self.key"):
        weight = matrix(bert().model.get_submodule(name))
        expected = keep_largest_per_row(weight.abs() * through(made, name).norm(dim=0), 0.5)
        assert torch.equal(matrix(made.model.get_submodule(name)) != 0, expected)


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_two_of_four_neighbours_stay(name: str) -> None:
    made = applied(name, llama(), mask_structure="2:4")
    for module in target_linears(made.model).values():
        assert bool(((matrix(module) == 0).view(-1, 4).sum(dim=1) == 2).all())
    assert made.notes["realised_sparsity"] == 0.5
    assert made.claims[-1].mask_structure == "2:4"


@pytest.mark.parametrize("name", ["rtn", "gptq"])
@pytest.mark.parametrize("sym", [False, True])
def test_pruned_weights_stay_zero_when_they_are_quantized(name: str, sym: bool) -> None:
    pruned = Magnitude(sparsity=0.5).apply(bert())
    zeros = {each: matrix(module) == 0 for each, module in target_linears(pruned.model).items()}
    made = applied(name, pruned, bits=4, group_size=32, sym=sym)
    for each, mask in zeros.items():
        dequantized = made.model.get_submodule(each).dequantized()
        assert bool((dequantized[mask] == 0).all())


def test_low_rank_has_the_parameters_that_it_says() -> None:
    plain, made = bert(), applied("low-rank", bert(), rank=8)
    saved = sum(
        matrix(module).numel() - 8 * sum(matrix(module).shape) for module in target_linears(plain.model).values()
    )
    assert count_weights(plain.model).num_parameters - count_weights(made.model).num_parameters == saved
    assert all(module.rank == 8 for module in made.model.modules() if isinstance(module, LowRankLinear))


def test_a_full_rank_loses_nothing_and_a_rank_that_saves_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no smaller than a matrix of 64 x 64"):
        applied("low-rank", bert(), rank=32)
    low, high = (distance(applied("low-rank", bert(), rank=rank), bert()) for rank in (4, 31))
    assert high < low


def test_awq_is_never_worse_than_rounding_on_its_own_samples() -> None:
    made = applied("awq", llama(), bits=3, group_size=32, clip=False)
    assert float(made.notes["relative_loss"]) < 1


@pytest.mark.parametrize("name", ["gptq", "awq", "wanda", "sparsegpt", "smoothquant", "low-rank"])
def test_without_calibration_samples_it_is_unsupported(name: str) -> None:
    options: dict[str, Any] = {**PACKING, **PRUNING, **OTHERS}[name]
    with pytest.raises(UnsupportedError, match="needs calibration samples"):
        applied(name, tiny_classifier(), **options)


def test_a_matrix_that_cannot_be_compressed_is_named() -> None:
    from compressbench.core.errors import CellError

    broken = bert()
    matrix(broken.model.get_submodule("bert.encoder.layer.0.output.dense"))[0, 0] = torch.nan
    with pytest.raises(CellError, match=r"bert\.encoder\.layer\.0\.output\.dense: the module can't be compressed"):
        applied("rtn", broken)


def test_calibration_is_an_option_that_can_be_given_in_a_recipe() -> None:
    step = methods.resolve("gptq")(calibration={"num_samples": 4, "sequence_length": 8})
    assert step.calibration == Calibration(num_samples=4, sequence_length=8)


def test_a_bias_stays_as_it_was() -> None:
    plain, made = bert(), applied("rtn", bert(), group_size=32)
    for name, module in target_linears(plain.model).items():
        ours, theirs = bias_of(made.model.get_submodule(name)), bias_of(module)
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs)


def test_rtn_computes_with_the_rounded_matrix() -> None:
    plain, made = gpt2(), applied("rtn", gpt2(), bits=3, group_size=-1)
    for name, module in target_linears(plain.model).items():
        matrix(module).copy_(rtn(matrix(module), Grid(3)).dequantize())
        assert isinstance(made.model.get_submodule(name), PackedLinear)
    assert torch.allclose(logits(plain), logits(made), atol=1e-5)
