"""What can't be true of scores and names is told, and nothing honest is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.records.name_plausibility import implausible_names
from compressbench.records.plausibility import implausible
from compressbench.records.score import Draw, Fidelity, Floor, Resampled, Score, Stratum
from compressbench.records.store import read_records
from compressbench.report.rows import rows_of

ROOT = Path(__file__).parent.parent.parent
HONEST = [ROOT / "results", *sorted((ROOT / "tests" / "data").glob("records-v*[0-9]"))]


@pytest.mark.parametrize("folder", HONEST, ids=lambda folder: folder.name)
def test_no_record_that_a_run_wrote_is_implausible(folder: Path) -> None:
    records, unreadable = read_records([folder])
    assert not unreadable
    assert {row.candidate: row.implausible for row in rows_of(records) if row.implausible} == {}


def resampled(low: float, high: float) -> Resampled:
    return Resampled(
        difference=0.0, low=low, high=high, standard_error=0.1, method="bootstrap", seed=0, num_resamples=99, num_units=9
    )  # fmt: skip


def paired(**changed: Any) -> Any:
    return build.counts(10, 4, 3080).model_copy(update=changed)


ACCURACY = build.accuracy_after(10, 4)
WRONG: list[tuple[Score, str]] = [
    (build.accuracy(1.2), "a proportion of 1.2"),
    (build.accuracy(-1e-9), "a proportion of -1e-09"),
    (build.accuracy(0.9, num_samples=0), "a value from no samples"),
    (build.accuracy(num_samples=10, num_truncated=11), "11 of 10 inputs were cut off"),
    (build.accuracy(reported={"acc_norm": 1.5}), "a proportion of 1.5 is reported"),
    (build.accuracy(strata={"x": Stratum(num_samples=5, value=2.0)}), "a proportion of 2"),
    (build.accuracy(strata={"x": Stratum(num_samples=5000, value=0.2)}), "a stratum has more samples than the task"),
    (
        build.accuracy(draws=(Draw(seed=0, value=-3.0, samples_file="a", samples_sha256="b"),)),
        "a proportion of -3",
    ),
    (build.accuracy(paired=paired(num_samples=9999)), "9999 samples are paired, and there are 3080"),
    (build.accuracy(paired=paired(num_harmful=3000, num_beneficial=3000)), "6000 of 3080 samples changed"),
    (build.accuracy(paired=paired(mean_difference=0.3)), "give a difference of 0.00194805, and it says 0.3"),
    (build.accuracy(paired=paired(mean_difference=-1.5)), "a difference of proportions of -1.5"),
    (build.accuracy(paired=paired(resampled=resampled(0.2, 0.1))), "an interval from 0.2 to 0.1"),
    (build.accuracy(floor=Floor(how="again", paired=build.counts(9, 9, 10))), "18 of 10 samples changed"),
    (build.accuracy(fidelity=Fidelity(agreement=1.0, kl_mean=-0.1)), "kl_mean of -0.1 is below 0"),
    (build.accuracy(fidelity=Fidelity(agreement=1.0, cosine_min=-1.1)), "cosine_min of -1.1 is no cosine"),
    (build.accuracy(fidelity=Fidelity(agreement=1.0, length_ratio=-1)), "length_ratio of -1 is below 0"),
    (build.perplexity(0.5), "a perplexity of 0.5 is below 1"),
    (build.perplexity(5.0, paired=build.counts(1, 0, 100).model_copy(update={"mean_difference": 900.0})), "infinite"),
]  # fmt: skip


@pytest.mark.parametrize(("score", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_score_that_can_not_be_is_told(score: Score, said: str) -> None:
    assert any(said in reason for reason in implausible([score]))


@pytest.mark.parametrize(
    "score",
    [
        ACCURACY,
        build.accuracy(0.0),
        build.accuracy(1.0),
        build.accuracy(paired=paired(mean_difference=0.3, resampled=resampled(0.2, 0.4))),  # clusters may have weights
        build.accuracy_after(0, 0),
        build.accuracy(reported={"perplexity": 25_000.0, "alias": "acc", "acc_stderr": 0.01}),
        build.perplexity(1e30),
        build.perplexity(1.0),
    ],
)
def test_a_score_that_can_be_is_not(score: Score) -> None:
    assert implausible([score]) == ()


@pytest.mark.parametrize("name", ["int8", "4layer-kd-int8", "Wanda_50.v2", "-x", "CON", "a" * 128, "awq", "0"])
def test_a_name_that_a_recipe_allows_is_plausible(name: str) -> None:
    assert implausible_names(build.record(name, recipe=build.recipe((name,)), key="0123456789abcdef")) == ()


@pytest.mark.parametrize("name", ["", ".x", "a b", "a/b", "é", "a" * 129, "control", "Control", "=1", "<b>"])
def test_a_name_that_no_recipe_allows_is_told(name: str) -> None:
    assert implausible_names(build.record(name))


@pytest.mark.parametrize(
    "model",
    [
        "embedded:minilm-banking77", "org/Some-Model_7B.v1", "./model", "../models/bert (1)", "/home/zoë/modèle",
        "C:\\m\\bert", "models/1=2", "~/x+y", "a" * 512, "模型",
    ],
)  # fmt: skip
def test_a_model_that_may_be_a_folder_is_plausible(model: str) -> None:
    asked = build.recipe(model={"id": model})
    source = build.record().model.model_copy(update={"id": model})  # type: ignore[union-attr]
    assert implausible_names(build.record(recipe=asked, model=source)) == ()
