from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lessons import (
    are_equal,
    inputs_of,
    padded,
    perturbed,
    resumed,
    sentences,
    sharpened,
    supplied,
    weights,
    windows,
    without_dropout,
)
from pydantic import ValidationError
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.methods.distillation.hidden_distillation import HiddenDistillation
from compressbench.methods.distillation.layer_mapping import pairs_of
from compressbench.models.handle import ModelHandle
from compressbench.testing import tiny_causal_lm, tiny_classifier


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return sharpened(tiny_classifier(num_layers=2))


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return sharpened(tiny_causal_lm(num_layers=2))


def narrow(width: int = 32, heads: int = 4, layers: int = 2, num_labels: int = 3) -> ModelHandle:
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=19, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=2 * width, max_position_embeddings=64, num_labels=num_labels,
    )  # fmt: skip
    return sharpened(tiny_classifier().with_model(BertForSequenceClassification(config).eval()))


def first_loss(student: ModelHandle, teacher: ModelHandle, batches: Any, **options: Any) -> float:
    """The loss of the first batch, before anything is learned."""
    step = HiddenDistillation(precision="float32", **options)
    return float(step.apply(supplied(student, teacher, batches[:1])).notes["last_loss"])


PARTS = [
    {"hidden_weight": 1.0, "attention_weight": 0.0, "logit_weight": 0.0},
    {"hidden_weight": 0.0, "attention_weight": 1.0, "logit_weight": 0.0},
    {"hidden_weight": 0.0, "attention_weight": 0.0, "logit_weight": 1.0},
]


@pytest.mark.parametrize("weighting", [*PARTS, {}])
@pytest.mark.parametrize("mapping", ["uniform", "skip", "last", ((0, 0), (2, 2))])
def test_a_perfect_copy_has_no_loss(
    classifier: ModelHandle, causal_lm: ModelHandle, weighting: dict[str, float], mapping: Any
) -> None:
    for teacher, batches in ((classifier, sentences()), (causal_lm, windows())):
        found = first_loss(without_dropout(teacher.copy()), teacher, batches, layer_mapping=mapping, **weighting)
        assert found == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("weighting", PARTS)
def test_exchanged_layers_have_a_loss(
    classifier: ModelHandle, causal_lm: ModelHandle, weighting: dict[str, float]
) -> None:
    for teacher, batches in ((classifier, sentences()), (causal_lm, windows())):
        student = without_dropout(teacher.copy())
        layers = student.model.bert.encoder.layer if teacher is classifier else student.model.model.layers
        one, other = (layer.state_dict() for layer in layers)
        one, other = ({name: tensor.clone() for name, tensor in each.items()} for each in (one, other))
        layers[0].load_state_dict(other)
        layers[1].load_state_dict(one)
        assert first_loss(student, teacher, batches, **weighting) > 1e-3


@pytest.mark.parametrize("pairs", [((0, 0), (1, 1), (2, 2)), ((1, 2), (2, 1))])
def test_the_loss_is_the_papers_sum(classifier: ModelHandle, pairs: tuple[tuple[int, int], ...]) -> None:
    batch = padded(sentences()[:1], token=5)[0]
    student = without_dropout(perturbed(classifier))
    teacher = classifier.copy()
    for handle in (student, teacher):
        handle.model.set_attn_implementation("eager")
    asked = {"output_hidden_states": True, "output_attentions": True}
    with torch.inference_mode():
        ours = student.model(**inputs_of(batch), **asked)
        theirs = teacher.model(**inputs_of(batch), **asked)
    counted = batch["attention_mask"].bool()
    hidden = attention = 0.0
    for one, other in pairs:
        hidden += float((ours.hidden_states[one] - theirs.hidden_states[other])[counted].square().mean())
        if one and other:  # the last three keys are padding
            q, p = (maps[at - 1].double()[..., :6] for maps, at in ((ours.attentions, one), (theirs.attentions, other)))
            attention += float((p * (p / q).log()).sum(-1)[:, :, :6].mean())
    p, q = ((each.logits.double() / 3).log_softmax(-1) for each in (theirs, ours))
    logits = 9 * float((p.exp() * (p - q)).sum(-1).mean())
    weighting: dict[str, Any] = {"hidden_weight": 0.5, "attention_weight": 2.0, "logit_weight": 0.3, "temperature": 3.0}
    found = first_loss(student, classifier, [batch], layer_mapping=pairs, **weighting)
    assert found == pytest.approx(0.5 * hidden + 2 * attention + 0.3 * logits, rel=1e-4)


@pytest.mark.parametrize("weighting", PARTS)
def test_padding_counts_nowhere(classifier: ModelHandle, causal_lm: ModelHandle, weighting: dict[str, float]) -> None:
    for teacher, batches in ((classifier, sentences()), (causal_lm, windows())):
        student = without_dropout(perturbed(teacher))
        plain = first_loss(student, teacher, batches, **weighting)
        for token in (0, 7):
            assert first_loss(student, teacher, padded(batches, token), **weighting) == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_student_comes_closer_layer_by_layer(
    classifier: ModelHandle, causal_lm: ModelHandle, precision: Any
) -> None:
    for teacher, batches in ((classifier, sentences()), (causal_lm, windows())):
        student = perturbed(teacher)
        step = HiddenDistillation(num_epochs=10, learning_rate=3e-3, precision=precision)
        done = step.apply(supplied(student, teacher, batches))
        for weighting in PARTS:
            before = first_loss(without_dropout(student.copy()), teacher, batches, **weighting)
            after = first_loss(without_dropout(done.copy()), teacher, batches, **weighting)
            assert after < 0.7 * before


def test_a_narrower_student_learns_through_a_projection_that_is_dropped(classifier: ModelHandle) -> None:
    student = narrow()
    step = HiddenDistillation(
        attention_weight=0, logit_weight=0, num_epochs=30, learning_rate=1e-2, warmup_ratio=0, precision="float32"
    )
    done = step.apply(supplied(student, classifier, sentences()))
    names = {name for name, _ in student.model.named_parameters()}
    assert {name for name, _ in done.model.named_parameters()} == names
    # the best projection of what student and trained student show, by least squares: the student itself must have moved
    teacher_states = shown(classifier)
    assert unexplained(shown(done), teacher_states) < 0.8 * unexplained(shown(student), teacher_states)


def shown(handle: ModelHandle) -> torch.Tensor:
    """The last hidden state of every token (tokens x width), float64."""
    with torch.inference_mode():
        outputs = [handle.model(**inputs_of(batch), output_hidden_states=True) for batch in sentences()]
    return torch.cat([output.hidden_states[-1].flatten(0, 1) for output in outputs]).double()


def unexplained(states: torch.Tensor, goal: torch.Tensor) -> float:
    """The mean squared error of the best linear map from one to the other."""
    best = torch.linalg.lstsq(states, goal).solution
    return float((states @ best - goal).square().mean())


def test_an_interrupted_run_keeps_its_projection(classifier: ModelHandle, tmp_path: Path) -> None:
    given = supplied(narrow(), classifier, sentences(), seed=2)
    step = HiddenDistillation(num_epochs=1, checkpoint_every=2, learning_rate=3e-3, attention_weight=0)
    assert are_equal(weights(resumed(step, given, tmp_path, cut_after=3)), weights(step.apply(given.copy())))


def test_attention_is_compared_without_dropout_and_put_back(classifier: ModelHandle) -> None:
    student = classifier.copy()  # with dropout
    assert student.model.config._attn_implementation == "sdpa"
    done = HiddenDistillation(hidden_weight=0, logit_weight=0, precision="float32").apply(
        supplied(student, classifier, sentences()[:1])
    )
    assert done.notes["last_loss"] == pytest.approx(0.0, abs=1e-6)
    assert done.model.config._attn_implementation == "sdpa"
    assert classifier.model.config._attn_implementation == "sdpa"
    with_dropout = HiddenDistillation(attention_weight=0, logit_weight=0, precision="float32").apply(
        supplied(classifier, classifier, sentences()[:1])
    )
    assert float(with_dropout.notes["last_loss"]) > 1e-3, "without attention, dropout stays"


def test_attention_is_put_back_after_an_error_too(classifier: ModelHandle) -> None:
    teacher = classifier.copy()
    teacher.model.classifier.bias.data.fill_(float("nan"))
    with pytest.raises(CellError, match="the training loss became nan"):
        HiddenDistillation().apply(supplied(classifier, teacher, sentences()))
    assert teacher.model.config._attn_implementation == "sdpa"


def test_a_model_that_returns_no_attention_is_unsupported(
    classifier: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, forward = type(classifier.model), type(classifier.model).forward

    def forgetful(self: nn.Module, **inputs: Any) -> Any:
        output = forward(self, **inputs)
        output["attentions"] = None
        return output

    monkeypatch.setattr(kind, "forward", forgetful)
    with pytest.raises(UnsupportedError, match="does not return its attention") as caught:
        HiddenDistillation().apply(supplied(classifier, classifier, sentences()))
    assert "attention_weight: 0" in caught.value.do
    HiddenDistillation(attention_weight=0).apply(supplied(classifier, classifier, sentences()))


def test_different_numbers_of_heads_are_unsupported(classifier: ModelHandle) -> None:
    student = narrow(width=64, heads=2)
    with pytest.raises(UnsupportedError, match="different numbers of heads") as caught:
        HiddenDistillation().apply(supplied(student, classifier, sentences()))
    assert caught.value.got == "2 in the student and 4 in the teacher"
    HiddenDistillation(attention_weight=0).apply(supplied(student, classifier, sentences()))


def test_layers_are_paired_by_the_papers_rules() -> None:
    assert pairs_of("uniform", 4, 12) == [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)]
    assert pairs_of("uniform", 3, 4) == [(0, 0), (1, 1), (2, 3), (3, 4)]
    assert pairs_of("skip", 6, 12) == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]
    assert pairs_of("skip", 3, 7) == [(1, 2), (2, 4), (3, 6)]
    assert pairs_of("last", 3, 12) == [(1, 10), (2, 11), (3, 12)]
    for rule in ("uniform", "skip", "last"):
        assert [pair for pair in pairs_of(rule, 5, 5) if pair != (0, 0)] == [(at, at) for at in range(1, 6)]
        with pytest.raises(UnsupportedError, match="at least as many layers"):
            pairs_of(rule, 3, 2)
    assert pairs_of([(3, 1), (0, 0)], 3, 2) == [(3, 1), (0, 0)]
    with pytest.raises(UnsupportedError, match=r"isn't there: \[4, 1\]"):
        pairs_of([(4, 1)], 3, 2)


def test_a_shallower_student_is_paired_as_noted(classifier: ModelHandle) -> None:
    for mapping, noted in (("uniform", "0:0 1:2"), ("skip", "1:2"), ("last", "1:2"), (((1, 1),), "1:1")):
        step = HiddenDistillation.model_validate({"layer_mapping": mapping})
        done = step.apply(supplied(narrow(layers=1), classifier, sentences()))
        assert done.notes["layers"] == noted


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_weight": 0, "attention_weight": 0, "logit_weight": 0},
        {"layer_mapping": []},
        {"layer_mapping": [[0, 0]]},
        {"layer_mapping": [[-1, 2]]},
        {"layer_mapping": "top"},
        {"hidden_weight": -1},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HiddenDistillation(**options)
