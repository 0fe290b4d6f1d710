"""Diminishing returns of records: the steps, the stop, rivals, curves, laws, and the real families under results/."""

from __future__ import annotations

import math
import random
from pathlib import Path

import front_parts
import frontier_parts as parts
import pytest
import record_builder as build

from compressbench.core.errors import InputError, MissingMeasurementError, UnknownNameError
from compressbench.records.record import Record
from compressbench.records.store import Located
from compressbench.report.catalog import Catalog, catalog_of, open_catalog
from compressbench.report.figures import Figure
from compressbench.report.frontier import Asked, Frontier, frontier
from compressbench.report.frontier_numbers import Words
from compressbench.report.frontier_plot import text_plot, to_svg
from compressbench.report.frontier_words import fit_sentences, notes, rival_sentences, stop_sentences
from compressbench.report.rows import Cell

RESULTS = Path(__file__).parents[2] / "results"
NAMES = ("disk_bytes", "effective_bits", "energy_j_per_inference", "latency_p50_s", "throughput_per_s", "sparsity")
Z95 = 1.959963984540054


def catalog(records: list[Record]) -> Catalog:
    return catalog_of([Located(Path(f"{at}.json"), record) for at, record in enumerate(records)])


def found_of(records: list[Record], **asked: object) -> tuple[Catalog, Frontier]:
    rows = catalog(records)
    return rows, frontier(rows, rows.contenders(NAMES), Asked(**{"cost": "size", **asked}))  # type: ignore[arg-type]


def sure(value: float | None) -> float:
    assert value is not None
    return value


def width(cell: Cell) -> float:
    return sure(cell.high) - sure(cell.low)


def labels(found: Frontier) -> list[str]:
    return [found.members[at].label for at in found.returns.front]


def said(rows: Catalog, found: Frontier) -> str:
    words = Words.of(found, rows)
    return "\n".join([*stop_sentences(words), *rival_sentences(words), *fit_sentences(words), *notes(words)])


def test_steps_go_along_the_front_from_the_cheapest_and_stop_where_no_gain_is_shown() -> None:
    rows, found = found_of(parts.family())
    assert labels(found) == ["two", "three", "four", "eight", "baseline"]
    assert found.members[found.returns.stop].label == "four"
    assert found.returns.first_unshown == 2
    text = said(rows, found)
    assert (
        "Above 27.0 MB (four) nothing more is shown to be gained: the step to eight (45.0 MB) costs 18.0 MB more"
        in text
    )
    assert "No smaller dense model was measured: that comparison is missing" in text
    assert "Not on the front, something else is as good for less: slow." in text


def test_a_gain_is_the_difference_of_paired_differences_with_both_errors() -> None:
    rows, found = found_of(parts.family())
    step = found.returns.steps[1]
    cells = [rows.row(found.members[at].contender.at) for at in (step.start, step.end)]
    verdicts = [row.against_baseline["accuracy"] for row in cells]
    assert step.gain.value == pytest.approx(
        sure(cells[1].cells["accuracy"].value) - sure(cells[0].cells["accuracy"].value)
    )
    widths = [sure(verdict.difference_high) - sure(verdict.difference_low) for verdict in verdicts]
    assert step.gain.high - step.gain.low == pytest.approx(math.hypot(*widths))
    # to the baseline it is the paired difference itself
    (last,) = [each for each in found.returns.steps if found.members[each.end].label == "baseline"]
    paired = rows.row(found.members[last.start].contender.at).against_baseline["accuracy"]
    assert last.gain.high - last.gain.low == pytest.approx(sure(paired.difference_high) - sure(paired.difference_low))


def test_the_smallest_gain_is_the_one_asked_for_or_the_declared_margin() -> None:
    assert found_of(parts.family())[1].smallest_gain is None
    rows, found = found_of(parts.family(), smallest_gain=0.05)
    assert found.members[found.returns.stop].label == "three"
    assert "less than the smallest gain of interest (5.00 pp, asked for)" in said(rows, found)
    declared = [
        record.model_copy(
            update={"scores": tuple(score.model_copy(update={"margin": 0.02}) for score in record.scores)}
        )
        for record in parts.family()
    ]
    rows, found = found_of(declared)
    assert (found.smallest_gain, found.margin_source) == (0.02, "the margin that the recipe declared")
    with pytest.raises(InputError, match="at least 0"):
        found_of(parts.family(), smallest_gain=-1.0)


def test_the_order_of_the_records_changes_nothing() -> None:
    _, found = found_of(parts.family())
    first, *rest = parts.family()
    _, again = found_of([first, *random.Random(0).sample(rest, len(rest))])
    assert again.points == found.points
    assert again.returns == found.returns
    assert again.fits == found.fits


def test_a_dominated_row_changes_nothing_of_the_steps() -> None:
    _, without = found_of([record for record in parts.family() if record.candidate != "slow"])
    _, found = found_of(parts.family())
    assert [step.gain for step in found.returns.steps] == [step.gain for step in without.returns.steps]
    assert labels(found) == labels(without)
    assert found.fits == without.fits


def test_curves_are_fitted_to_the_front_or_to_all_rows() -> None:
    _, found = found_of(parts.family())
    assert found.fits is None or found.fits.num_rows == 5
    _, everyone = found_of(parts.family(), all_rows=True)
    assert everyone.fits is not None
    assert everyone.fits.num_rows == 6
    rows, few = found_of(parts.family()[:4])
    assert few.fits is None
    assert "No curve through the rows on the front: 4 rows, and a curve needs at least 5." in said(rows, few)


def test_rivals_are_named_by_their_size_and_compared_by_their_own_values() -> None:
    smaller = parts.rival("tiny", "embedded:tiny", 0.915, 0.15, 3e6)
    made = parts.rival("task", "embedded:task", 0.80, 0.4, 1e6)
    rows, found = found_of([*parts.family(), *smaller, *made], rivals=("tiny",), task_rivals=("task",))
    assert {each.rival for each in found.rivals} == {"smaller dense model", "task-specific small model"}
    assert "three" not in labels(found)
    step = next(each for each in found.returns.steps if found.members[each.end].rival)
    own = [rows.row(found.members[at].contender.at).cells["accuracy"] for at in (step.start, step.end)]
    assert step.gain.high - step.gain.low == pytest.approx(math.hypot(*map(width, own)))
    text = said(rows, found)
    assert "was measured: that comparison is missing" not in text
    assert "Rival baseline of tiny (13.5 MB), a smaller dense model: on the front." in text
    assert "a task-specific small model: four (27.0 MB) costs no more and has +" in text


def test_a_dominated_rival_leaves_the_familys_paired_steps_as_they_are() -> None:
    _, alone = found_of(parts.family())
    _, found = found_of([*parts.family(), *parts.rival("tiny", "embedded:tiny", 0.70, 0.4, 3e6)], rivals=("tiny",))
    assert [step.gain for step in found.returns.steps] == [step.gain for step in alone.returns.steps]
    assert [each.rival for each in found.rivals] == ["smaller dense model"]


def test_a_rival_that_can_not_be_compared_says_why() -> None:
    rows = catalog(parts.family())
    family = [front_parts.baseline(), front_parts.candidate("small", 0.02, 0.2)._replace(at=1)]
    bare = Figure(0.93, direction="higher")
    rival = front_parts.baseline()._replace(at=2, model="other", recipe="tiny")
    rival = rival._replace(figures={**rival.figures, "accuracy": bare})
    found = frontier(rows, [*family, rival], Asked(cost="size", rivals=("tiny",)))
    assert labels(found) == ["small", "baseline"]
    assert "is not compared: accuracy: it has no interval of its own." in said(rows, found)
    # nor is one that could be, if the family has nothing to hold against it
    ours = family[1].figures
    family[1] = family[1]._replace(figures={**ours, "accuracy": ours["accuracy"]._replace(low=None)})
    rival = rival._replace(figures={**rival.figures, "accuracy": bare._replace(low=0.92, high=0.94)})
    found = frontier(rows, [*family, rival], Asked(cost="size", rivals=("tiny",)))
    assert not found.rivals
    assert "rows of this family have no interval of their own" in said(rows, found)


def test_costs_by_a_clock_are_the_baselines_times_the_paired_ratio() -> None:
    rows, found = found_of(parts.family(), cost="energy")
    base = next(member for member in found.members if member.label == "baseline")
    assert base.point.cost == pytest.approx(rows.row(base.contender.at).cells["energy_j_per_inference"].value)
    for member in found.members:
        verdict = rows.row(member.contender.at).against_baseline.get("energy_j_per_inference")
        if verdict is not None:
            assert member.point.cost == pytest.approx(base.point.cost * sure(verdict.ratio))


def test_without_energy_the_cost_is_the_size() -> None:
    silent = build.interleaved(build.noisy(0.01, seed=1), build.noisy(0.01, seed=2), energy_w=None)
    rows, found = found_of(parts.family(measurement=silent), cost="")
    assert found.cost == "disk_bytes"
    assert "Energy was not measured of two rows or more, so the cost is the size on disk." in said(rows, found)
    assert found_of(parts.family(), cost="")[1].cost == "energy_j_per_inference"


def test_what_is_no_cost_or_no_quality_is_refused() -> None:
    for cost in ("sparsity", "accuracy"):
        with pytest.raises(InputError, match="it is no cost"):
            found_of(parts.family(), cost=cost)
    with pytest.raises(InputError, match="Ask for it with --cost"):
        found_of(parts.family(), metric="disk_bytes")
    with pytest.raises(UnknownNameError, match="Did you mean 'energy'"):
        found_of(parts.family(), cost="enery")
    rows = catalog(parts.family())
    with pytest.raises(MissingMeasurementError, match="no row has both accuracy and ttft_p50_s"):
        frontier(rows, rows.contenders(["ttft_p50_s"]), Asked(cost="ttft"))


def test_the_text_plot_shows_the_costs_of_the_table() -> None:
    rows = open_catalog([Path(__file__).parents[1] / "data" / "quickstart"])
    found = frontier(rows, rows.contenders(NAMES), Asked(cost="latency"))
    drawn = text_plot(rows, found, 80)
    assert [drawn[-2].split()[place] for place in (0, -2)] == ["4.16", "10.2"]


def test_a_faulty_or_failed_row_is_on_no_front() -> None:
    failed = build.failed("broken", recipe=parts.family()[0].recipe)
    rows, found = found_of([*parts.family(), failed])
    assert "broken" not in [member.label for member in found.members]
    assert "NOT RANKED broken: failed: CUDA ran out of memory" in said(rows, found)


def test_one_row_that_is_best_in_both_has_no_step() -> None:
    rows, found = found_of([*parts.family()[:1], *(each for each in parts.family() if each.candidate == "eight")])
    better = build.record(
        "eight",
        recipe=parts.family()[0].recipe,
        readings=build.readings(disk_bytes=9e6),
        scores=(build.accuracy_after(1, 9),),
    )
    rows, found = found_of([parts.family()[0], better])
    assert not found.returns.steps
    assert "eight (9.00 MB) is the best in both" in said(rows, found)


def test_coverage_of_the_gains_of_simulated_families() -> None:
    """From figures to positions to steps: three rows with known gains and the errors that their intervals say."""
    draw, hits, number = random.Random(2), 0, 0
    true, error = (-0.04, -0.01, 0.0), 0.004
    rows = catalog(parts.family()[:1])
    for _ in range(800):
        small, middle = (draw.gauss(level, error) for level in true[:2])
        contenders = [
            front_parts.baseline(),
            front_parts.candidate("small", -small, 0.2, error=error),
            front_parts.candidate("middle", -middle, 0.5, error=error),
        ]
        found = frontier(rows, contenders, Asked(cost="size"))
        truth = {"small": -0.04, "middle": -0.01, "baseline": 0.0}
        for step in found.returns.steps:
            gain = truth[found.members[step.end].label] - truth[found.members[step.start].label]
            hits += step.gain.low <= gain <= step.gain.high
            number += 1
    assert number > 1500
    assert hits / number == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("cost", ["size", "bits"])
@pytest.mark.parametrize(
    ("folder", "front", "stop"),
    [
        ("shakespeare-quality", ["rtn-3", "gptq-4", "int8-dynamic", "bf16", "baseline"], "gptq-4"),
        (
            "all-methods-cpu",
            ["gptq", "bnb-nf4", "auto-round", "int8-weight-only", "llm-compressor"],
            "int8-weight-only",
        ),
    ],
)
def test_the_real_families_say_where_returns_stop(folder: str, front: list[str], stop: str, cost: str) -> None:
    rows = open_catalog([RESULTS / folder])
    found = frontier(rows, rows.contenders(NAMES), Asked(cost=cost))
    assert labels(found) == front
    assert found.members[found.returns.stop].label == stop
    assert f"({stop}) nothing more " in said(rows, found)
    assert found.is_log


def test_perplexity_is_a_negative_logarithm() -> None:
    rows = open_catalog([RESULTS / "shakespeare-quality"])
    found = frontier(rows, rows.contenders(NAMES), Asked(cost="bits"))
    for member in found.members:
        value = rows.row(member.contender.at).cells[found.metric].value
        assert member.point.quality == pytest.approx(-math.log(sure(value)), abs=1e-9)
    assert found.smallest_gain == pytest.approx(math.log1p(0.01))


def test_the_picture_is_wellformed_and_keeps_names_as_text() -> None:
    from xml.etree import ElementTree

    rows = catalog([*parts.family(), *parts.rival("tiny", "embedded:tiny", 0.915, 0.15, 3e6)])
    contenders = rows.contenders(NAMES)
    contenders[2] = contenders[2]._replace(candidate='<script>"&\x1b')
    found = frontier(rows, contenders, Asked(cost="size"))
    picture = to_svg(rows, found)
    root = ElementTree.fromstring(picture)  # noqa: S314 - our own
    assert any('<script>"& ' in (element.text or "") for element in root.iter())
    assert "<script" not in picture
    assert len([each for each in root.iter() if each.tag.endswith(("circle", "rect"))]) == len(found.members)
    assert "currentColor" in picture
    assert len(picture) < 10_000
