"""What stands beside a curve of returns: rivals of both kinds, monotony, the law of bits, energy's spread for rivals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import frontier_parts as parts
import pytest
import record_builder as build

from compressbench.core.protocols import Provenance
from compressbench.records.measurement import Measurement
from compressbench.records.record import Record
from compressbench.records.score import Paired
from compressbench.records.store import Located
from compressbench.report.catalog import Catalog, catalog_of
from compressbench.report.frontier import Asked, Frontier, frontier
from compressbench.report.frontier_check_words import check_sentences
from compressbench.report.frontier_numbers import Words
from compressbench.report.frontier_words import notes, rival_sentences
from compressbench.report.repeatability import spread_of

NAMES = ("disk_bytes", "effective_bits", "energy_j_per_inference")


def found_of(records: list[Record], **asked: Any) -> tuple[Catalog, Frontier]:
    rows = catalog_of([Located(Path(f"{at}.json"), record) for at, record in enumerate(records)])
    return rows, frontier(rows, rows.contenders(NAMES), Asked(**{"cost": "size", **asked}))


def rivals_said(rows: Catalog, found: Frontier) -> str:
    return "\n".join(rival_sentences(Words.of(found, rows)))


def checks_said(rows: Catalog, found: Frontier) -> str:
    return "\n".join(check_sentences(Words.of(found, rows)))


def student(fell: int = 60, rose: int = 10, readings: Mapping[str, float] | None = None) -> Record:
    sizes = {"disk_bytes": 36e6, "effective_bits": 32.0, "num_parameters": 17e6, "sparsity": 0.0}
    return build.record(
        "student",
        recipe=parts.family()[0].recipe,
        readings=build.readings(**{**sizes, **(readings or {})}),
        scores=(build.accuracy_after(fell, rose),),
    )


def test_both_kinds_of_rival_are_named_even_where_there_is_none() -> None:
    rows, found = found_of(parts.family())
    text = rivals_said(rows, found)
    assert "No smaller dense model was measured" in text
    assert "No task-specific small model was measured" in text
    task = parts.rival("task", "embedded:task", 0.80, 0.4, 1e6)
    rows, found = found_of([*parts.family(), *task], task_rivals=("task",))
    text = rivals_said(rows, found)
    assert "No smaller dense model" in text
    assert "No task-specific" not in text


def test_a_distilled_student_of_the_family_is_its_smaller_dense_model() -> None:
    rows, found = found_of([*parts.family(), student()])
    text = rivals_said(rows, found)
    assert "No smaller dense model" not in text
    assert (
        "Rival student (36.0 MB), a smaller dense model of this family: four (27.0 MB) costs no more and has +" in text
    )
    # it is compared by its paired difference, as the family is
    (at,) = found.smaller
    assert found.rivals_behind[at].gain.value == pytest.approx((60 - 10) / 3080 - (14 - 8) / 3080)
    assert not found.rivals


@pytest.mark.parametrize("changed", [{"effective_bits": 8.0}, {"sparsity": 0.5}, {"num_parameters": 1e12}])
def test_what_is_quantized_pruned_or_larger_is_no_smaller_dense_model(changed: dict[str, float]) -> None:
    _, found = found_of([*parts.family(), student(readings=changed)])
    assert found.smaller == ()


def test_a_student_on_the_front_is_said_to_be_there() -> None:
    rows, found = found_of([*parts.family(), student(4, 3)])
    assert "Rival student (36.0 MB), a smaller dense model of this family: on the front." in rivals_said(rows, found)


def test_a_dearer_row_that_is_worse_beyond_chance_contradicts_monotony() -> None:
    rows, found = found_of(parts.family())
    text = checks_said(rows, found)
    assert "Isotonic regression of all 6 rows of the family" in text
    assert "1 pair contradicts it beyond chance" not in text
    assert "The most: slow (54.0 MB) has -" in text
    assert found.checks.monotony is not None
    assert found.checks.monotony.num_shown == 2
    rows, without = found_of([record for record in parts.family() if record.candidate != "slow"])
    assert "no dearer row is below a cheaper one" in checks_said(rows, without)


def test_the_curve_is_held_against_the_isotonic_fit_of_its_own_rows() -> None:
    rows, found = found_of(parts.family(), all_rows=True)
    assert found.fits is not None
    gap = found.checks.gap
    assert gap is not None
    assert gap.in_errors >= 0
    assert "The curve departs from the isotonic fit of its rows by" in checks_said(rows, found)
    few, none = found_of(parts.family()[:4])
    assert none.checks.gap is None
    assert "The curve departs" not in checks_said(few, none)


def by_bits(extra: float, *, widths: tuple[float, ...] = (9, 8, 7, 6, 5.5, 5, 4.5, 4, 3.5, 3)) -> list[Record]:
    """Perplexities of one method whose losses follow the law, and break below 5 bits."""
    said = build.recipe(tuple(f"rtn-{bits}" for bits in widths), name="bits")
    base = 3.3
    records = [build.record(recipe=said, scores=(build.perplexity(2.718281828**base),))]
    for bits in widths:
        loss = 0.002 * 4 ** (0.9 * (9 - bits) + extra * max(0.0, 5 - bits))
        paired = Paired(
            num_samples=100, num_harmful=60, num_beneficial=40, mean_difference=loss, sd_difference=0.2 * loss + 0.001
        )
        records.append(
            build.record(
                f"rtn-{bits}",
                recipe=said,
                steps=(build.step("rtn"),),
                readings=build.readings(disk_bytes=3e6 * bits, effective_bits=bits),
                scores=(build.perplexity(2.718281828 ** (base + loss), paired=paired),),
            )
        )
    return records


def test_losses_by_bits_follow_the_law_and_a_break_is_said_only_where_they_break() -> None:
    rows, found = found_of(by_bits(0.0), cost="bits")
    assert found.is_log
    text = checks_said(rows, found)
    assert "Law of bits through 10 rows of rtn, modelled: loss = a 4^(-b bits) with b = 0.90 [" in text
    assert "No break is shown" in text
    rows, broken = found_of(by_bits(0.6), cost="bits")
    text = checks_said(rows, broken)
    assert "A break is shown" in text
    law = broken.checks.laws["rtn"]
    assert law.break_at is not None
    assert law.break_at.value == pytest.approx(5.0, abs=0.2)
    assert f"down to {law.break_at.value:.2f} [" in text


def test_too_few_widths_or_another_cost_have_no_law() -> None:
    rows, found = found_of(by_bits(0.0, widths=(8, 4, 3)), cost="bits")
    assert "No law of bits: no method was run at 5 different numbers of bits or more." in checks_said(rows, found)
    rows, found = found_of(by_bits(0.0), cost="size")
    assert "bits:" not in checks_said(rows, found)
    rows, found = found_of(parts.family(), cost="bits")
    assert not found.checks.laws
    assert "aw of bits" not in checks_said(rows, found)


def without_uncertainty(**changed: Any) -> Measurement:
    found = build.interleaved(build.noisy(0.01, seed=1), build.noisy(0.01, seed=2), **changed)
    how = Provenance(
        kind="estimated", source="a made-up meter", boundary="cpu", uncertainty_reason="not stated", tick_s=0.01
    )
    return found.model_copy(update={"provenance": {"energy_j": how}})


def test_energy_without_an_interval_is_compared_with_rivals_by_the_spread_of_its_rounds() -> None:
    bare = without_uncertainty()
    task = parts.rival("task", "embedded:task", 0.80, 0.4, 1e6, measurement=bare)
    records = [*parts.family(measurement=bare), *task]
    rows, found = found_of(records, cost="energy", task_rivals=("task",))
    assert [each.rival for each in found.rivals] == ["task-specific small model"]
    cell = rows.row(found.rivals[0].contender.at).cells["energy_j_per_inference"]
    assert cell.low is None
    assert found.rivals[0].point.own_cost_error > 0
    assert "Energy of rivals is compared by the spread of each row's own rounds" in "\n".join(
        notes(Words.of(found, rows))
    )
    alone, family = found_of(parts.family(measurement=bare), cost="energy")
    assert "Energy of rivals" not in "\n".join(notes(Words.of(family, alone)))


def test_the_spread_is_that_of_an_exact_instrument() -> None:
    bare = build.record(measurement=without_uncertainty())
    found = spread_of(bare, "energy_j_per_inference")
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.value < found.high
    # one round has no spread
    assert spread_of(build.record(measurement=without_uncertainty(rounds=1)), "energy_j_per_inference") is None
    silent = build.interleaved(build.noisy(0.01), build.noisy(0.01), energy_w=None)
    assert spread_of(build.record(measurement=silent), "energy_j_per_inference") is None


def test_two_instruments_are_not_taken_for_one() -> None:
    bare = without_uncertainty()
    other = bare.provenance["energy_j"].model_copy(update={"source": "another meter"})
    task = parts.rival(
        "task", "embedded:task", 0.80, 0.4, 1e6, measurement=bare.model_copy(update={"provenance": {"energy_j": other}})
    )
    rows, found = found_of([*parts.family(measurement=bare), *task], cost="energy", task_rivals=("task",))
    assert not found.rivals
    assert "it has no interval of its own" in rivals_said(rows, found)
