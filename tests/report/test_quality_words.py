"""How scores read in a table for people."""

from __future__ import annotations

import pytest
import record_builder as build

from compressbench.records.record import Record
from compressbench.records.score import Floor, Score
from compressbench.report.quality_words import signed
from compressbench.report.rows import rows_of
from compressbench.report.words import cell_lines, columns, footnotes


def table(*scores: Score, before: tuple[Score, ...] | None = None) -> tuple[list[str], list[str]]:
    """The lines of the candidate's first metric, and the footnotes."""
    plain = tuple(score.model_copy(update={"paired": None}) for score in scores)
    records: list[Record] = build.run_of({"int8": build.record("int8", scores=scores)}, scores=before or plain)
    rows = rows_of(records)
    return cell_lines(rows[1], rows[1].metrics[0]), footnotes(rows, columns(rows))


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (-0.13, 0.4, "-0.13"),
        (0.00001, 1.0, "±0.00"),
        (0.0108, 0.004, "+0.0108"),
        (1745.88, 500.0, "+1,746"),
        (0.0, 0.0, "±0.00"),
        (12.345, 30.0, "+12.35"),
    ],
)
def test_a_difference_has_as_many_digits_as_its_interval_can_bear(value: float, half_width: float, text: str) -> None:
    assert signed(value, half_width) == text


def test_a_score_says_what_is_claimed_how_sure_and_what_flipped() -> None:
    lines, notes = table(build.accuracy_after(10, 12, before=0.8, num_samples=1000))
    assert lines == [
        "80.20 %",
        "+0.20 inconclusive",
        "[-0.74, +1.14]",
        "n needed = 43,161",
        "MDE 1.3",
        "10 lost, 12 won",
    ]
    assert any("Scores: 1 difference judged (Holm)" in note for note in notes)
    assert any("nothing is called equivalent: set `margin`" in note for note in notes)


def test_with_a_margin_nobody_is_told_to_declare_one() -> None:
    lines, notes = table(build.accuracy_after(10, 12, num_samples=100_000).model_copy(update={"margin": 0.005}))
    assert lines[1] == "+0.0020 equivalent"
    assert not any("set `margin`" in note for note in notes)


def test_a_difference_that_holm_takes_back_says_so() -> None:
    scores = [build.accuracy_after(15, 4, num_samples=1000), *[build.accuracy_after(5, 5, num_samples=1000)] * 3]
    lines, notes = table(*scores)
    assert lines[1] == "-1.10 inconclusive"
    assert any("significant alone, but not among all differences" in note for note in notes)


def test_runs_are_judged_apart_and_a_table_of_two_says_so() -> None:
    score = build.accuracy_after(30, 3, num_samples=1000)
    runs = [build.run_of({"int8": build.record("int8", scores=(score,))}) for _ in range(2)]
    later = [each.model_copy(update={"run_id": "20261123T074513.926665Z"}) for each in runs[1]]
    rows = rows_of([*runs[0], *later])
    notes = footnotes(rows, columns(rows))
    assert any("Scores: 2 differences, those of each run judged as one family (Holm)" in note for note in notes)


def test_the_noise_floor_is_told_where_there_is_one() -> None:
    score = build.accuracy_after(30, 3, num_samples=1000)
    noisy = score.model_copy(update={"paired": None, "floor": Floor(how="b", paired=build.counts(4, 2, 1000))})
    _, notes = table(score, before=(noisy,))
    assert (
        "accuracy: in another batch size and order the baseline differs from itself by 0.4 points; less is noise."
        in notes
    )
    _, quiet = table(score)
    assert not any("differs from itself by" in note and "batch size" in note for note in quiet)
