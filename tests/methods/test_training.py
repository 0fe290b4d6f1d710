from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lessons import (
    are_equal,
    perturbed,
    sentences,
    sharpened,
    supplied,
    weights,
    windows,
    without_dropout,
)
from pydantic import ValidationError
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.methods.distillation.accelerator import one_accelerator
from compressbench.methods.distillation.recover import Recover
from compressbench.methods.distillation.training import (
    Lesson,
    Training,
    hard_loss,
    labelled_rows,
    pruned_weights,
    train,
    unfreeze,
    warm_up_then_decay,
)
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.testing import tiny_causal_lm, tiny_classifier


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return sharpened(tiny_classifier(num_layers=1))


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return sharpened(tiny_causal_lm(num_layers=1))


def rows_in_order(handle: ModelHandle, batches: Sequence[Batch]) -> ModelHandle:
    """A copy that gets the rows of `batches` in the same order whatever the batch size."""
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

    def source(batch_size: int, _max_samples: int | None, _seed: int) -> list[Batch]:
        parts = {name: torch.split(tensor, batch_size) for name, tensor in whole.items()}
        return [{name: part[at] for name, part in parts.items()} for at in range(len(parts["labels"]))]

    return handle.copy(Supplies(training_batches=source))


@pytest.mark.parametrize(("parts", "size"), [(2, 4), (4, 2), (8, 1)])
def test_accumulated_batches_make_the_step_of_one_large_batch(
    classifier: ModelHandle, causal_lm: ModelHandle, parts: int, size: int
) -> None:
    options: dict[str, Any] = {"learning_rate": 1e-2, "num_epochs": 1, "precision": "float32"}
    for handle, batches in ((without_dropout(classifier.copy()), sentences()), (causal_lm, windows(count=4, rows=4))):
        given = rows_in_order(handle, batches)
        whole = Recover(batch_size=8, **options).apply(given.copy())
        split = Recover(batch_size=size, gradient_accumulation_steps=parts, **options).apply(given.copy())
        assert split.notes["num_steps"] == whole.notes["num_steps"]
        assert split.notes["last_loss"] == pytest.approx(whole.notes["last_loss"], rel=1e-5)
        inputs = {"input_ids": batches[0]["input_ids"]}
        one, other, start = (each.model(**inputs).logits.detach() for each in (whole, split, handle))
        torch.testing.assert_close(other, one, rtol=1e-3, atol=2e-3)
        assert float((one - start).abs().max()) > 0.1


def test_the_loop_is_the_one_written_out_by_hand(causal_lm: ModelHandle) -> None:
    batches = windows(count=5)
    options = Recover(num_epochs=2, learning_rate=5e-3, weight_decay=0.1, max_grad_norm=0.5, precision="float32")
    done = options.apply(supplied(causal_lm, None, batches))

    model = causal_lm.copy().model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
    for step, batch in enumerate([*batches, *batches]):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1.0, (10 - step) / 9)
        optimizer.zero_grad()
        torch.autograd.backward(model(**batch).loss)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        assert float(norm) > 0.5
        optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(done.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_rises_and_falls_in_straight_lines() -> None:
    found = [warm_up_then_decay(step, 20, 0.25) for step in range(20)]
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5:] == pytest.approx([(20 - step) / 15 for step in range(5, 20)])
    assert [warm_up_then_decay(step, 3, 0.0) for step in range(3)] == pytest.approx([1.0, 1.0, 0.5])
    assert warm_up_then_decay(0, 1, 0.1) == 1.0
    assert [warm_up_then_decay(step, 4, 1.0) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_only_tokens_with_a_label_make_rows() -> None:
    logits = torch.arange(24.0).reshape(2, 4, 3)
    labels = torch.tensor([[5, 6, 7, -100], [5, -100, -100, 8]])
    targets, rows = labelled_rows(labels, logits)
    assert targets.tolist() == [6, 7, 8]
    assert torch.equal(rows, torch.stack([logits[0, 0], logits[0, 1], logits[1, 2]]))
    labels, of_sentences = torch.tensor([1, 0]), logits[:, 0]
    assert all(a is b for a, b in zip(labelled_rows(labels, of_sentences), (labels, of_sentences), strict=True))


# ---- precision, and the process-wide settings of accelerate


def shared_settings() -> list[dict[str, Any]]:
    from accelerate.state import AcceleratorState, GradientState, PartialState  # type: ignore[import-untyped]

    return [dict(kind._shared_state) for kind in (PartialState, AcceleratorState, GradientState)]


def dtypes_seen(handle: ModelHandle, precision: Any) -> set[torch.dtype]:
    """The types of the logits in training."""
    given = supplied(handle, None, windows())
    student, seen = unfreeze(given.model, Training()), set()

    def loss(batch: dict[str, Any]) -> torch.Tensor:
        logits = student(input_ids=batch["input_ids"]).logits
        seen.add(logits.dtype)
        return hard_loss(batch["labels"], logits)

    assert given.supplies.training_batches is not None
    train(Training(precision=precision), given, Lesson(student, loss, given.supplies.training_batches))
    return seen


def test_two_precisions_in_one_process_leave_no_trace(causal_lm: ModelHandle) -> None:
    before = shared_settings()
    assert dtypes_seen(causal_lm, "bfloat16") == {torch.bfloat16}
    assert dtypes_seen(causal_lm, "float32") == {torch.float32}
    assert dtypes_seen(causal_lm, "bfloat16") == {torch.bfloat16}
    assert shared_settings() == before
    assert not torch.is_autocast_enabled("cpu")


def test_somebody_elses_accelerator_is_left_as_it_was(causal_lm: ModelHandle) -> None:
    with one_accelerator("cpu", "float32", 3) as theirs:
        before = shared_settings()
        assert dtypes_seen(causal_lm, "bfloat16") == {torch.bfloat16}
        with pytest.raises(ZeroDivisionError), one_accelerator("cpu", "bfloat16", 1):
            raise ZeroDivisionError
        assert shared_settings() == before
        assert (theirs.mixed_precision, theirs.gradient_accumulation_steps) == ("no", 3)


def test_the_environment_does_not_decide_how_many_batches_make_a_step(
    causal_lm: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Recover(learning_rate=1e-2, gradient_accumulation_steps=3)
    plain = weights(step.apply(supplied(causal_lm, None, windows())))
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert are_equal(weights(step.apply(supplied(causal_lm, None, windows()))), plain)


def test_a_precision_that_the_device_lacks_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate  # type: ignore[import-untyped]

    def refuse(**_: Any) -> None:
        raise ValueError("bf16 mixed precision requires a supported device")

    monkeypatch.setattr(accelerate, "Accelerator", refuse)
    before = shared_settings()
    with (
        pytest.raises(UnsupportedError, match="training in bfloat16 is not possible on cpu"),
        one_accelerator("cpu", "bfloat16", 1),
    ):
        pass
    assert shared_settings() == before


# ---- pruned weights, frozen embeddings


def tiny_gpt2() -> ModelHandle:
    config = GPT2Config(vocab_size=19, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=2, eos_token_id=3)
    torch.manual_seed(0)
    lm = tiny_causal_lm(num_layers=1)
    return lm.with_model(GPT2LMHeadModel(config).eval())


def test_pruned_weights_of_gpt2_stay_zero_too() -> None:
    handle = tiny_gpt2()
    layer = handle.model.transformer.h[0]
    for module in (layer.attn.c_attn, layer.mlp.c_fc):
        module.weight.data[torch.rand_like(module.weight) < 0.5] = 0.0
    masks = [module.weight == 0 for module in (layer.attn.c_attn, layer.mlp.c_fc)]
    assert len(pruned_weights(handle.model)) == 2
    before = weights(handle)
    done = Recover(num_epochs=3, learning_rate=1e-2).apply(supplied(handle, None, windows()))
    trained = done.model.transformer.h[0]
    for module, mask, name in zip(
        (trained.attn.c_attn, trained.mlp.c_fc), masks, ("attn.c_attn", "mlp.c_fc"), strict=True
    ):
        assert torch.equal(module.weight == 0, mask)
        moved = module.weight != before[f"transformer.h.0.{name}.weight"]
        assert float(moved[~mask].float().mean()) > 0.9


def test_weights_that_are_not_trained_or_are_embeddings_need_no_restoring(causal_lm: ModelHandle) -> None:
    model = causal_lm.copy().model
    assert not model.lm_head.weight[0].any(), "the padding token's row is zero, and the head is tied to it"
    assert pruned_weights(model) == []
    model.model.layers[0].mlp.up_proj.weight.data[0] = 0.0
    assert len(pruned_weights(model)) == 1
    assert pruned_weights(model.requires_grad_(False)) == []


def test_frozen_embeddings_stay_bitwise_as_they_are(causal_lm: ModelHandle) -> None:
    done = Recover(freeze_embeddings=True, learning_rate=1e-2).apply(supplied(causal_lm, None, windows()))
    assert torch.equal(done.model.lm_head.weight, causal_lm.model.lm_head.weight)  # tied
    assert not torch.equal(done.model.model.norm.weight, causal_lm.model.model.norm.weight)


# ---- what can't be trained


def test_without_a_batch_there_is_nothing_to_train_on(classifier: ModelHandle) -> None:
    with pytest.raises(CellError, match="there is no training batch"):
        Recover().apply(supplied(classifier, None, []))
    with pytest.raises(UnsupportedError, match="needs training data"):
        Recover().apply(classifier.copy(Supplies()))


def test_a_loss_that_is_not_finite_ends_the_cell(classifier: ModelHandle) -> None:
    broken = perturbed(classifier, noise=float("inf"))
    with pytest.raises(CellError, match="the training loss became nan"):
        Recover().apply(supplied(broken, None, sentences()))


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": 0},
        {"max_grad_norm": 0},
        {"warmup_ratio": 1.5},
        {"checkpoint_every": 0},
        {"precision": "float16"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Training(**options)


def test_steps_are_counted_in_whole_groups_of_batches() -> None:
    assert Training(num_epochs=2, gradient_accumulation_steps=4).num_steps(10) == 5
    assert Training(num_epochs=0.1, gradient_accumulation_steps=4).num_steps(10) == 1
    assert Training(num_epochs=2.5, max_samples=40).num_training_samples(100) == 100
