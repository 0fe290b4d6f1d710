"""A gate on capabilities, whatever the mean says."""

from __future__ import annotations

from pathlib import Path

import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.records.record import Record
from compressbench.records.score import Score
from compressbench.records.store import RecordStore
from compressbench.report.rows import rows_of
from compressbench.report.stratum_gate import stratum_gate


def score(stratum: str, lost: int, won: int = 0) -> Score:
    found = build.accuracy_after(lost, won, before=0.8, num_samples=1000)
    return found.model_copy(update={"stratum": stratum, "label": f"{stratum}-task", "task": "multiple-choice"})


def run(*scores: Score) -> list[Record]:
    baseline = tuple(each.model_copy(update={"paired": None}) for each in scores)
    return build.run_of({"int8": build.record("int8", scores=scores)}, scores=baseline)


@pytest.mark.parametrize(("lost", "outcome", "code"), [(5, "passed", 0), (45, "inconclusive", 2), (90, "failed", 1)])
def test_the_whole_interval_of_the_worst_loss_decides(lost: int, outcome: str, code: int, tmp_path: Path) -> None:
    records = run(score("knowledge", 2, 60), score("reasoning", lost))
    found = stratum_gate(rows_of(records), 0.05)
    assert found.outcome == outcome
    assert (outcome == "passed") == found.lines[0].startswith("passed")
    assert all("reasoning lost" in line for line in found.lines if outcome != "passed")
    store = RecordStore(tmp_path)
    for record in records:
        store.append(record)
    assert call(["table", str(tmp_path), "--max-stratum-drop", "0.05"]) == code


def test_a_perplexity_loses_a_fraction_of_the_baselines() -> None:
    paired = build.counts(50, 50, 100).model_copy(update={"mean_difference": 0.1, "sd_difference": 0.05})
    words = build.perplexity(22.1, paired=paired).model_copy(update={"stratum": "language"})
    assert rows_of(run(words))[1].strata[0].loss == pytest.approx(0.10517, abs=1e-5)
    assert stratum_gate(rows_of(run(words)), 0.05).outcome == "failed"
    assert stratum_gate(rows_of(run(words)), 0.2).outcome == "passed"


def test_what_was_not_asked_can_not_pass() -> None:
    found = stratum_gate(rows_of(run(score("", 0))), 0.05)
    assert (found.outcome, found.lines) == ("inconclusive", ["inconclusive int8: no task of it has a stratum"])
    assert stratum_gate([], 0.05).outcome == "inconclusive"


def test_an_implausible_score_does_not_pass() -> None:
    odd = score("reasoning", 0).model_copy(update={"implausible": ("all of 1000 predictions are '0'",)})
    found = stratum_gate(rows_of(run(odd)), 0.05)
    assert found.outcome == "inconclusive"
    assert "all of 1000 predictions" in found.lines[0]
