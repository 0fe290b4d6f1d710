from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lessons import (
    Listener,
    PowerCutError,
    are_equal,
    listened,
    perturbed,
    resumed,
    sentences,
    sharpened,
    supplied,
    weights,
    windows,
)
from pydantic import ValidationError
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.methods.distillation.generation import Writing, end_tokens
from compressbench.methods.distillation.gkd import Gkd
from compressbench.methods.distillation.sequence_distillation import SequenceDistillation
from compressbench.models.handle import ModelHandle
from compressbench.testing import tiny_causal_lm, tiny_classifier


@pytest.fixture(scope="module")
def teacher() -> ModelHandle:
    return sharpened(tiny_causal_lm(num_layers=2))


def surprise(handle: ModelHandle, batches: list[dict[str, torch.Tensor]]) -> float:
    """Mean cross-entropy in nats of the new tokens, by transformers' own loss."""
    with torch.inference_mode():
        return sum(float(handle.model.eval()(**batch).loss) for batch in batches) / len(batches)


def count_passes(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the batch size with each pass of this model (not of others of its kind)."""
    rows: list[int] = []
    forward = handle.model.forward

    def counted(*args: Any, **inputs: Any) -> Any:
        rows.append(len(inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(handle.model, "forward", counted)
    return rows


# ---- how a text is continued


@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_greedy_continuation_is_the_one_of_transformers(num_layers: int) -> None:
    handle = sharpened(tiny_causal_lm(num_layers=num_layers), 6.0)
    (batch,) = windows(count=1, rows=6)
    found = Writing(5, 12, 19).continued(handle.model, batch)
    expected = handle.model.generate(
        input_ids=batch["input_ids"][:, :5],
        attention_mask=batch["attention_mask"][:, :5],
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
    )
    ends = end_tokens(handle.model)
    assert ends == [3]
    for row, labels, theirs in zip(found["input_ids"], found["labels"], expected, strict=True):
        new = theirs[5:].tolist()
        length = new.index(3) + 1 if 3 in new else 12
        assert row[: 5 + length].tolist() == theirs[: 5 + length].tolist()
        assert labels[:5].tolist() == [-100] * 5
        assert labels[5 : 5 + length].tolist() == new[:length], "the end of the text is learned"
        assert labels[5 + length :].tolist() == [-100] * (12 - length), "what follows it is not"
    assert found["input_ids"].shape == found["labels"].shape == found["attention_mask"].shape == (6, 17)


def test_some_texts_end_early_and_some_do_not(teacher: ModelHandle) -> None:
    torch.manual_seed(0)
    (batch,) = windows(count=1, rows=64)
    labels = Writing(4, 12, 19, temperature=1.0).continued(teacher.model, batch)["labels"]
    lengths = (labels != -100).sum(dim=1)
    assert int(lengths.min()) < 12 == int(lengths.max())
    for row, length in zip(labels.tolist(), lengths.tolist(), strict=True):
        assert 3 not in row[4 : 4 + length - 1]
        assert length == 12 or row[4 + length - 1] == 3


def test_without_a_cache_the_text_is_the_same(teacher: ModelHandle) -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.generation_config = teacher.model.config, teacher.model.generation_config

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            output = teacher.model(input_ids=input_ids)
            output["past_key_values"] = None
            return output

    (batch,) = windows(count=1)
    writing = Writing(5, 10, 19)
    found: Any = Forgetful()
    assert torch.equal(
        writing.continued(found, batch)["input_ids"], writing.continued(teacher.model, batch)["input_ids"]
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_drawn_tokens_follow_the_softmax_at_the_temperature(teacher: ModelHandle, temperature: float) -> None:
    torch.manual_seed(1)
    (batch,) = windows(count=1, rows=1)
    many = {name: tensor.repeat(4000, 1) for name, tensor in batch.items()}
    drawn = Writing(6, 1, 19, temperature).continued(teacher.model, many)["input_ids"][:, 6]
    with torch.inference_mode():
        logits = teacher.model(input_ids=batch["input_ids"][:, :6]).logits[0, -1]
    expected = (logits / temperature).softmax(dim=0)
    found = torch.bincount(drawn, minlength=19) / 4000
    assert float((found - expected).abs().max()) < 4 * 0.5 / 4000**0.5  # four standard deviations


def test_only_tokens_that_the_tokenizer_knows_are_written(teacher: ModelHandle) -> None:
    (batch,) = windows(count=1, rows=32)
    torch.manual_seed(0)
    assert int(Writing(4, 8, 7, temperature=50.0).continued(teacher.model, batch)["input_ids"][:, 4:].max()) < 7


def test_a_model_that_writes_has_no_dropout_and_is_left_in_its_mode(teacher: ModelHandle) -> None:
    model = teacher.copy().model
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    (batch,) = windows(count=1)
    calm = Writing(5, 10, 19).continued(model.eval(), batch)["input_ids"]
    assert not model.training
    assert torch.equal(Writing(5, 10, 19).continued(model.train(), batch)["input_ids"], calm)
    assert model.training


def test_end_tokens_may_be_several_or_none(teacher: ModelHandle) -> None:
    model = teacher.copy().model
    model.generation_config.eos_token_id = [3, 9]
    assert end_tokens(model) == [3, 9]
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    assert end_tokens(model) == []
    (batch,) = windows(count=1)
    assert not (Writing(4, 9, 19).continued(model, batch)["labels"][:, 4:] == -100).any()


# ---- what is learned from it


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 0.7}, {"precision": "float32"}])
def test_the_student_learns_what_its_teacher_writes(teacher: ModelHandle, options: dict[str, Any]) -> None:
    student = perturbed(teacher, 0.2)
    batches = windows(count=3, rows=8)
    torch.manual_seed(0)  # these models have no dropout, so that the draws are those of the training
    written = [Writing(4, 10, 19, options.get("temperature")).continued(teacher.model, batch) for batch in batches]
    before = surprise(student, written)
    step = SequenceDistillation(prompt_tokens=4, max_new_tokens=10, num_epochs=12, learning_rate=3e-3, **options)
    done = step.apply(supplied(student, teacher, batches))
    assert surprise(done, written) < 0.6 * before
    assert done.notes["num_steps"] == 36


def test_the_loss_is_the_cross_entropy_of_the_teachers_tokens(teacher: ModelHandle) -> None:
    student, batches = perturbed(teacher), windows(count=1)
    written = Writing(4, 10, 19).continued(teacher.model, batches[0])
    step = SequenceDistillation(prompt_tokens=4, max_new_tokens=10, precision="float32")
    done = step.apply(supplied(student, teacher, batches))
    assert done.notes["last_loss"] == pytest.approx(surprise(student, [written]), rel=1e-5)
    ids = batches[0]["input_ids"].clone()
    ids[:, 4:] = 7  # the rest of the window is not used
    assert (
        step.apply(supplied(student, teacher, [{**batches[0], "input_ids": ids}])).notes["last_loss"]
        == done.notes["last_loss"]
    )


def test_every_window_is_continued_once_and_seen_in_every_epoch(
    teacher: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = teacher.copy()
    passes = count_passes(writer, monkeypatch)
    student, seen = perturbed(teacher), []
    forward = student.model.forward
    given = supplied(student, writer, windows(count=3, rows=4))

    def watched(**inputs: Any) -> Any:
        seen.append(inputs["input_ids"].clone())
        return forward(**inputs)

    monkeypatch.setattr(given.model, "forward", watched)
    SequenceDistillation(prompt_tokens=4, max_new_tokens=5, num_epochs=3, batch_size=4).apply(given)
    assert passes == [4] * 3 * 5, "three batches of five tokens"
    epochs = [torch.cat(seen[at : at + 3]) for at in (0, 3, 6)]
    orders = [[tuple(row) for row in epoch.tolist()] for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2]


def test_a_part_of_an_epoch_asks_for_a_part_of_the_texts(teacher: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = teacher.copy()
    passes = count_passes(writer, monkeypatch)
    step = SequenceDistillation(prompt_tokens=4, max_new_tokens=5, num_epochs=0.5)
    step.apply(supplied(perturbed(teacher), writer, windows(count=4)))
    assert len(passes) == 2 * 5


@pytest.mark.parametrize("do_sample", [False, True])
def test_an_interrupted_run_writes_nothing_twice(
    teacher: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do_sample: bool
) -> None:
    step = SequenceDistillation(
        prompt_tokens=4, max_new_tokens=5, num_epochs=2, do_sample=do_sample, checkpoint_every=2, learning_rate=3e-3
    )
    writer = teacher.copy()
    passes = count_passes(writer, monkeypatch)
    given = supplied(perturbed(teacher), writer, windows(count=3), seed=6)
    whole = step.apply(given.copy())
    for cut_after in (3, 5):
        assert are_equal(weights(resumed(step, given, tmp_path, cut_after)), weights(whole))
    passes.clear()
    with pytest.raises(PowerCutError):
        step.apply(listened(given, Listener(5), tmp_path))
    assert len(passes) == 3 * 5
    step.apply(listened(given, Listener(), tmp_path))
    assert len(passes) == 3 * 5


@pytest.mark.parametrize("kind", [SequenceDistillation, Gkd])
def test_only_language_models_write(kind: Any) -> None:
    classifier = tiny_classifier(num_layers=1)
    step = kind(prompt_tokens=2, max_new_tokens=2)
    with pytest.raises(UnsupportedError, match="for language models only"):
        step.apply(supplied(classifier, classifier, sentences()))
    with pytest.raises(UnsupportedError, match="for language models only"):
        step.check_model({"architectures": ["BertForSequenceClassification"]})
    known: list[Mapping[str, Any]] = [
        {}, {"architectures": None}, {"architectures": ["LlamaForCausalLM"]}, {"architectures": ["GPT2LMHeadModel"]}
    ]  # fmt: skip
    for config in known:
        step.check_model(config)


SHORTENED: list[Batch] = [
    {**batch, "attention_mask": batch["attention_mask"] * (torch.arange(8) < torch.tensor([[8], [3], [8], [8]]))}
    for batch in windows()
]


@pytest.mark.parametrize(
    ("options", "batches", "complaint"),
    [
        ({"prompt_tokens": 9, "max_new_tokens": 4}, windows(), "a training window has fewer than 9 tokens"),
        ({"prompt_tokens": 4, "max_new_tokens": 4}, SHORTENED, "a training window has fewer than 4 tokens"),
        ({"prompt_tokens": 4, "max_new_tokens": 61}, windows(), "the model reads at most 64 tokens at once"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    teacher: ModelHandle, options: dict[str, Any], batches: list[Batch], complaint: str
) -> None:
    for step in (SequenceDistillation(**options), Gkd(lmbda=1.0, **options)):
        with pytest.raises(UnsupportedError, match=complaint):
            step.apply(supplied(teacher, teacher, batches))


@pytest.mark.parametrize("options", [{"temperature": 0.7}, {"prompt_tokens": 0}, {"max_new_tokens": 0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SequenceDistillation(**options)
    SequenceDistillation.model_validate(SequenceDistillation().model_dump())
