from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lessons import are_equal, distance, inputs_of, perturbed, resumed, sharpened, supplied, weights, windows
from pydantic import ValidationError

from compressbench.methods.distillation.generation import Writing
from compressbench.methods.distillation.gkd import Gkd
from compressbench.methods.distillation.logit_distillation import LogitDistillation
from compressbench.methods.maths.distance import generalized_jsd
from compressbench.models.handle import ModelHandle
from compressbench.testing import tiny_causal_lm

SHORT = {"prompt_tokens": 4, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def teacher() -> ModelHandle:
    return sharpened(tiny_causal_lm(num_layers=2))


def test_off_policy_forward_kl_is_logit_distillation(teacher: ModelHandle) -> None:
    shared: dict[str, Any] = {"temperature": 1.0, "num_epochs": 2, "learning_rate": 3e-3}
    given = supplied(perturbed(teacher), teacher, windows())
    one = Gkd(lmbda=0.0, beta=0.0, **shared).apply(given.copy())
    other = LogitDistillation(alpha=1.0, **shared).apply(given.copy())
    assert are_equal(weights(one), weights(other))
    assert one.notes == other.notes
    assert not are_equal(weights(Gkd(lmbda=0.0, beta=1.0, **shared).apply(given.copy())), weights(other))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_loss_is_the_divergence_on_what_the_student_wrote(teacher: ModelHandle, beta: float) -> None:
    student, batches = perturbed(teacher), windows(count=1)
    step = Gkd(lmbda=1.0, beta=beta, temperature=1e-3, precision="float32", **SHORT)  # as good as greedy
    found = step.model_copy(update={"temperature": 0.02}).apply(supplied(student, teacher, batches))
    written = Writing(4, 8, 19).continued(student.model, batches[0])
    counted = written["labels"][:, 1:] != -100
    with torch.inference_mode():
        ours, theirs = (
            handle.model(**inputs_of(written)).logits[:, :-1][counted].double() for handle in (student, teacher)
        )
    expected = float(generalized_jsd(ours, theirs, beta=beta, temperature=0.02))
    assert found.notes["last_loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("options", [{"lmbda": 0.0}, {"lmbda": 1.0}, {"lmbda": 0.0, "seq_kd": True}])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_equal_models_have_nothing_to_learn(teacher: ModelHandle, options: dict[str, Any], beta: float) -> None:
    step = Gkd(beta=beta, precision="float32", **SHORT, **options)
    done = step.apply(supplied(teacher.copy(), teacher, windows(count=1)))
    assert done.notes["last_loss"] == pytest.approx(0.0, abs=1e-6)


def sources(monkeypatch: pytest.MonkeyPatch, given: ModelHandle, teacher: ModelHandle, step: Gkd) -> list[str]:
    """Who wrote each batch."""
    wrote: list[str] = []
    plain = Writing.continued

    def watched(self: Writing, model: Any, batch: Any) -> Any:
        wrote.append("teacher" if model is teacher.model else "student")
        assert not model.training or wrote[-1] == "student"
        return plain(self, model, batch)

    monkeypatch.setattr(Writing, "continued", watched)
    step.apply(given)
    return wrote


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lmbda": 0.0}, []),
        ({"lmbda": 1.0}, ["student"] * 6),
        ({"lmbda": 0.0, "seq_kd": True}, ["teacher"] * 6),
        ({"lmbda": 1.0, "seq_kd": True}, ["student"] * 6),
    ],
)
def test_who_writes_the_texts(
    teacher: ModelHandle, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: list[str]
) -> None:
    given = supplied(perturbed(teacher), teacher, windows(count=6))
    assert sources(monkeypatch, given, teacher, Gkd(**SHORT, **options)) == expected


def test_lmbda_is_the_share_that_the_student_writes(teacher: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    given = supplied(perturbed(teacher), teacher, windows(count=1, rows=1))
    step = Gkd(lmbda=0.3, seq_kd=True, prompt_tokens=2, max_new_tokens=1, num_epochs=100, precision="float32")
    wrote = sources(monkeypatch, given, teacher, step)
    assert len(wrote) == 100
    assert wrote.count("student") / 100 == pytest.approx(0.3, abs=0.14)  # three standard deviations


@pytest.mark.parametrize(("beta", "precision"), [(0.0, "float32"), (0.5, "bfloat16"), (1.0, "float32")])
def test_on_policy_the_student_comes_closer_to_its_teacher(teacher: ModelHandle, beta: float, precision: Any) -> None:
    student = perturbed(teacher)
    given = supplied(student, teacher, windows())
    step = Gkd(lmbda=1.0, beta=beta, temperature=1.0, num_epochs=12, learning_rate=3e-3, precision=precision, **SHORT)
    done = step.apply(given)
    # on texts that neither was trained on: what the models would write
    texts = [Writing(4, 8, 19).continued(teacher.model, batch) for batch in windows(count=5)[3:]]
    assert distance(done, teacher, [*texts]) < 0.6 * distance(student, teacher, [*texts])


def test_every_weight_is_reached_by_gradients_after_writing_under_autocast(teacher: ModelHandle) -> None:
    student = perturbed(teacher)
    before = weights(student)
    step = Gkd(lmbda=1.0, precision="bfloat16", weight_decay=0.0, learning_rate=1e-2, num_epochs=1, **SHORT)
    done = step.apply(supplied(student, teacher, windows()))
    for name, parameter in done.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_an_interrupted_run_draws_the_same_texts(teacher: ModelHandle, tmp_path: Path) -> None:
    step = Gkd(lmbda=0.5, seq_kd=True, checkpoint_every=2, num_epochs=2, learning_rate=3e-3, **SHORT)
    given = supplied(perturbed(teacher), teacher, windows(), seed=8)
    assert are_equal(weights(resumed(step, given, tmp_path, cut_after=3)), weights(step.apply(given.copy())))


def test_the_seed_decides_every_weight(teacher: ModelHandle) -> None:
    step = Gkd(lmbda=0.7, num_epochs=1, learning_rate=3e-3, **SHORT)

    def run(seed: int) -> dict[str, torch.Tensor]:
        return weights(step.apply(supplied(perturbed(teacher), teacher, windows(), seed=seed)))

    first = run(0)
    assert are_equal(run(0), first)
    assert not are_equal(run(1), first)


@pytest.mark.parametrize("options", [{"lmbda": 1.1}, {"beta": -0.1}, {"temperature": 0}, {"max_new_tokens": 0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Gkd(**options)
