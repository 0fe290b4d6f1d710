from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import think_parts as parts
from think_parts import Model, even

from compressbench.core.errors import MissingMeasurementError, NotComparableError
from compressbench.core.statistics import mean_interval
from compressbench.report.catalog import Catalog, open_catalog
from compressbench.report.think import Thinking, thinking
from compressbench.report.think_plot import to_svg
from compressbench.report.think_words import answer
from compressbench.tasks.pass_at_k import pass_at_k


def read(folder: str) -> Thinking:
    catalog: Catalog = open_catalog([Path(folder)])
    return thinking(catalog, catalog.contenders())


@pytest.fixture(scope="module")
def cheap_and_worse(tmp_path_factory: pytest.TempPathFactory) -> Thinking:
    """Half as good at one sample, a fifth of the price: with votes it overtakes."""
    models = {"big": Model(even(0.6)), "small": Model(even(0.45), 0.2), "twin": Model(even(0.6))}
    return read(parts.write(tmp_path_factory.mktemp("think"), models))


def test_a_cheap_model_that_overtakes_by_votes_is_a_reversal(cheap_and_worse: Thinking) -> None:
    (pair,) = [p for p in cheap_and_worse.pairs if cheap_and_worse.label(p.other) == "small" and p.reference == 0]
    assert pair.at_one.high < 0, "worse at one sample each"
    assert pair.budgets[0].num_other[0] == pytest.approx(5, abs=1)
    assert pair.budgets[1].difference is not None
    assert pair.budgets[1].difference.low > 0
    assert pair.is_reversed
    first = next(answer(cheap_and_worse))
    assert "rankings reversed" in first
    assert "small" in first


def test_two_of_a_kind_do_not_reverse(cheap_and_worse: Thinking) -> None:
    pairs = [p for p in cheap_and_worse.pairs if {p.reference, p.other} == {0, 2}]
    assert len(pairs) == 1
    assert not pairs[0].is_reversed


def test_joules_are_the_rate_of_a_token_times_what_was_written(cheap_and_worse: Thinking) -> None:
    big, small = (cheap_and_worse.lines[at].variant for at in (0, 1))
    # 4 W for 10 ms and 10 tokens
    assert big.joules.price is not None
    assert big.joules.price.once == 0
    assert big.joules.price.per_sample == pytest.approx(20 * 4 * 0.010 / 10, rel=0.01)
    assert small.joules.price is not None
    assert small.joules.price.per_sample == pytest.approx(0.2 * big.joules.price.per_sample, rel=0.01)
    assert big.seconds.price is not None
    assert big.seconds.price.per_sample == pytest.approx(20 * 0.010 / 10, rel=0.01)
    assert big.joules.kind == "estimated"


def test_a_prompt_is_paid_once_where_prefill_is_known(tmp_path: Path) -> None:
    folder = parts.write(tmp_path, {"big": Model(even(0.5))}, measurement=parts.measured(1.0, share=0.25))
    price = read(folder).lines[0].variant.joules.price
    assert price is not None
    # a quarter of 40 mJ for 16 tokens of input, of which a question has 8; three quarters for the 9 tokens after the first
    assert price.once == pytest.approx(0.25 * 0.040 / 16 * 8, rel=0.01)
    assert price.per_sample == pytest.approx(0.75 * 0.040 / 9 * 20, rel=0.01)


def test_coverage_is_pass_at_k_and_the_selected_accuracy_that_of_the_rows(cheap_and_worse: Thinking) -> None:
    line = cheap_and_worse.lines[0]
    rows = parts.rows_of(Model(even(0.6)), seed=0)
    rights = [round(row.also["pass@1"] * 16) for row in rows]
    point = line.points[2]
    assert point.k == 4
    assert point.coverage == mean_interval([pass_at_k(16, right, 4) for right in rights])
    assert point.selected == mean_interval([row.also["majority@4"] for row in rows])


def test_without_a_selection_coverage_is_compared(tmp_path: Path) -> None:
    found = read(parts.write(tmp_path, {"big": Model(even(0.6)), "small": Model(even(0.3), 0.5)}, select="none"))
    assert not found.is_selected
    assert found.lines[0].variant.accuracy(4) == found.lines[0].variant.coverage(4)
    assert "coverage" in " ".join(answer(found))


def test_what_writes_more_pays_more(tmp_path: Path) -> None:
    found = read(parts.write(tmp_path, {"big": Model(even(0.6)), "wordy": Model(even(0.6), 1.0, 60)}))
    (pair,) = found.pairs
    assert pair.budgets[0].num_other[0] == 0, "three times the tokens: not one sample for the price of one"
    assert pair.budgets[2].num_other[0] == 1


def test_records_without_several_samples_or_joules_are_refused(tmp_path: Path) -> None:
    import record_builder as build

    from compressbench.records.store import RecordStore

    RecordStore(tmp_path / "one").append(build.record())
    with pytest.raises(MissingMeasurementError, match="several samples"):
        read(str(tmp_path / "one"))
    folder = parts.write(tmp_path / "no", {"big": Model(even(0.6))}, measurement=None)
    with pytest.raises(MissingMeasurementError, match="joules"):
        read(folder)


def test_other_questions_are_not_compared(tmp_path: Path) -> None:
    parts.write(tmp_path, {"big": Model(even(0.6))})
    folder = parts.write(tmp_path, {"few": Model([0.5] * 50)}, name="other")
    with pytest.raises(NotComparableError, match="different questions"):
        read(folder)


def test_what_failed_is_said_and_not_compared(tmp_path: Path) -> None:
    folder = parts.write(tmp_path, {"big": Model(even(0.6))})
    parts.failed_too(folder)
    found = read(folder)
    assert [each.label for each in found.skipped] == ["broken"]


def test_the_picture_is_a_line_for_each_variant(cheap_and_worse: Thinking) -> None:
    drawn = ElementTree.fromstring(to_svg(cheap_and_worse))  # noqa: S314 -- our own text
    lines = [each for each in drawn.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 3
    assert all(len(each.attrib["points"].split()) == 5 for each in lines)
