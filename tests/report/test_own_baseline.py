"""A ratio is against the baseline that ran beside the candidate: where that one took another time, a reader sees it."""

from __future__ import annotations

import csv
import io

import pytest
import record_builder as build
from rich.console import Console

from compressbench.records.record import Record
from compressbench.report.own_baseline import baselines_of, together, told_apart
from compressbench.report.plain import to_csv, to_markdown
from compressbench.report.record_words import record_lines
from compressbench.report.rows import rows_of
from compressbench.report.terminal import print_table
from compressbench.report.words import cell_lines, footnotes

CLOCKED = ["latency_p50_s", "energy_j_per_inference", "disk_bytes"]


def a_run() -> list[Record]:
    """The machine became slower by half after the baseline's row was measured, and the first candidate."""
    measured = {
        "early": build.interleaved(0.0101, 0.008),
        "late": build.interleaved(0.015, 0.010),
    }
    candidates = {name: build.record(name, measurement=found) for name, found in measured.items()}
    return build.run_of(candidates, measurement=build.interleaved(0.010, 0.010))


def test_the_baseline_beside_a_candidate_is_what_its_ratio_is_of() -> None:
    _, early, late = rows_of(a_run())
    for row, seconds in ((early, 0.0101), (late, 0.015)):
        for name, expected in (("latency_p50_s", seconds), ("energy_j_per_inference", 4 * seconds)):
            verdict = row.against_baseline[name]
            assert verdict.baseline_value == pytest.approx(expected, rel=0.01)
            cell = row.cells[name].value
            assert cell is not None
            assert verdict.baseline_value is not None
            assert verdict.ratio == pytest.approx(cell / verdict.baseline_value, rel=0.01)
    assert late.against_baseline["throughput_per_s"].baseline_value == pytest.approx(1 / 0.015, rel=0.01)
    assert late.against_baseline["disk_bytes"].baseline_value is None, "it was counted once"


def test_a_cell_shows_it_where_the_value_of_the_baselines_row_would_mislead() -> None:
    rows = rows_of(a_run())
    seen = baselines_of(rows)
    baseline, early, late = ([cell_lines(row, name, seen)[0] for name in CLOCKED] for row in rows)
    assert baseline == ["10.0 ms", "40.0 mJ (est.)", "90.0 MB"]
    assert early == ["8.00 ms", "32.0 mJ (est.)", "90.0 MB"]
    assert late == ["15.0 → 10.0 ms", "60.0 → 40.0 mJ (est.)", "90.0 MB"]
    assert cell_lines(rows[2], "latency_p50_s")[0] == "10.0 ms", "where nobody sees a baseline"


def test_a_footnote_says_over_what_the_baseline_ranges() -> None:
    rows = rows_of(a_run())
    (note,) = (note for note in footnotes(rows, CLOCKED) if note.startswith("The baseline was measured again"))
    assert "latency p50 10.0 to 15.0 ms, energy per inference 40.0 to 60.0 mJ. Each ratio" in note
    assert not any("measured again" in note for note in footnotes(rows[:2], CLOCKED))


def test_tables_and_the_words_of_a_record_show_it_and_the_csv_has_a_column() -> None:
    records = a_run()
    rows = rows_of(records)
    stream = io.StringIO()
    print_table(rows, console=Console(file=stream, width=200))
    shown = "".join(text for line in record_lines(records[2], records) for text, _ in line)
    for text in (to_markdown(rows), stream.getvalue(), shown):
        assert "15.0 → 10.0 ms" in text
    late = list(csv.DictReader(io.StringIO(to_csv(rows))))[2]
    assert float(late["latency_p50_s_baseline_value"]) == rows[2].against_baseline["latency_p50_s"].baseline_value
    assert "disk_bytes_baseline_value" not in late


@pytest.mark.parametrize(
    ("own", "shown", "told"),
    [(1.04, 1.0, None), (1.06, 1.0, 1.06), (0.9, 1.0, 0.9), (1.0, None, 1.0), (None, 1.0, None)],
)
def test_a_twentieth_is_no_difference_worth_a_second_number(
    own: float | None, shown: float | None, told: float | None
) -> None:
    assert told_apart(own, shown) == told


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        ("13.0 ms", "7.88 ms", "13.0 → 7.88 ms"),
        ("1.02 s", "980 ms", "1.02 s → 980 ms"),
        ("106 mJ", "64.3 mJ (est.)", "106 → 64.3 mJ (est.)"),
        ("980 samples/s", "1,204 samples/s", "980 → 1,204 samples/s"),
    ],
)
def test_a_unit_that_both_have_stands_once(one: str, other: str, text: str) -> None:
    assert together(one, other) == text
