"""Rows of one key may be ranked together; others are refused with what differs, or forced under a watermark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.core.errors import NotComparableError
from compressbench.records.record import Record
from compressbench.records.store import Located
from compressbench.report.catalog import Catalog, catalog_of
from compressbench.report.groups import differing_conditions, groups_of, models_of, one_group, one_model, shown_apart


def catalog(*records: Record) -> Catalog:
    return catalog_of([Located(Path(f"{number}.json"), record) for number, record in enumerate(records)])


def on(cpu: str = "Example CPU", **changed: Any) -> Record:
    return build.record(environment=build.environment(cpu_model=cpu), **changed)


def test_one_key_is_one_group_without_a_watermark() -> None:
    found = catalog(on(), on(run_id="20261123T074513.926665Z"))
    assert len(groups_of(found.contenders())) == 1
    assert one_group(found, found.contenders()) == ""
    assert one_group(found, []) == ""


def test_groups_come_in_the_order_of_their_first_rows() -> None:
    found = catalog(on("B"), on("A"), on("B"))
    assert [[each.at for each in group] for group in groups_of(found.contenders()).values()] == [[0, 2], [1]]


def test_others_are_refused_with_every_condition_that_differs() -> None:
    found = catalog(on("A"), on("B"), on("B", scores=(build.accuracy(version=2),)))
    with pytest.raises(NotComparableError) as caught:
        one_group(found, found.contenders(), do="Do this.")
    error = caught.value
    assert error.exit_code == 5
    assert error.what == "3 rows fall into 3 groups that can't be ranked together"
    assert error.got == (
        "hardware: A, x86_64 (avx2… | B, x86_64 (avx2…; "
        "tasks: text-classification v1: accuracy, 3080… | text-classification v2: accuracy, 3080…"
    )
    assert error.do == "Do this."
    assert one_group(found, found.contenders(), force=True).endswith("these rows differ in hardware, tasks")


def test_a_difference_at_the_end_of_a_long_condition_is_seen() -> None:
    flags = tuple(f"flag{number}" for number in range(40))
    machines = [build.environment(cpu_flags=each) for each in (flags, (*flags, "amx_int8"))]
    found = catalog(*(build.record(environment=each) for each in machines))
    with pytest.raises(NotComparableError) as caught:
        one_group(found, found.contenders())
    assert "amx_int8" in caught.value.got
    assert len(caught.value.got) < 120


def test_conditions_of_a_hostile_record_stay_on_one_line() -> None:
    found = catalog(on("A\x1b[31m\n"), on("B\u202e", recipe=build.recipe(name="x\x1b[2J")))
    with pytest.raises(NotComparableError) as caught:
        one_group(found, found.contenders())
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_the_keys_to_choose_from_stand_one_a_line_and_many_values_are_not_listed() -> None:
    found = catalog(*(on(name) for name in "ABCDE"), on("A"))
    with pytest.raises(NotComparableError) as caught:
        one_group(found, found.contenders())
    head, *lines = str(caught.value).split("\n")
    assert head == (
        "example: 6 rows fall into 5 groups that can't be ranked together (got hardware, each of several values). "
        "Choose one, or rank them all the same with --force:"
    )
    keys = [each[0].comparability_key for each in groups_of(found.contenders()).values()]
    assert sorted(lines) == sorted(
        f"  --key {key}  example: {'2 rows' if at == 0 else '1 row'}, 2026-11-22" for at, key in enumerate(keys)
    )


def test_models_are_told_apart_by_their_baselines() -> None:
    other = build.recipe(name="other", model={"id": "embedded:tiny-banking77"})
    tiny = build.record(recipe=other, run_id="20261123T074513.926665Z")
    found = catalog(on("A"), tiny.model_copy(update={"environment": on("A").environment}))
    assert len(groups_of(found.contenders())) == 1
    assert len(models_of(found.contenders())) == 2
    assert one_model(found.contenders()[:1]) == ""
    with pytest.raises(
        NotComparableError, match="2 rows are of 2 models, and nothing is asked of their quality"
    ) as caught:
        one_model(found.contenders())
    assert "--goal accuracy:threshold=LIMIT" in caught.value.do
    assert "--recipe example or --recipe other" in caught.value.do
    assert one_model(found.contenders(), force=True).startswith("NOT COMPARABLE, forced: these rows are of 2 models")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "4"], ["1", "4"]),
        (["", "x"], ["nothing", "x"]),
        (["aa", "aaa"], ["aa", "aaa"]),
        (["one two three four five six 1", "one two three four five six 2"], ["…four five six 1", "…four five six 2"]),
        (
            ["1 two three four five six seven", "2 two three four five six seven"],
            ["1 two three four…", "2 two three four…"],
        ),
        (["x" * 200, "y" * 200], ["x" * 79 + "…", "y" * 79 + "…"]),
    ],
)
def test_long_values_are_shown_where_they_differ(values: list[str], expected: list[str]) -> None:
    assert shown_apart(values) == expected


def test_distinct_values_are_never_shown_as_one() -> None:
    words = ["a", "bb", "a a", "long word"]
    texts = [
        " ".join([*[words[number % 4]] * number, tail]) for number in range(40) for tail in ("", "x", "y " * 50 + "1")
    ]
    for one in texts:
        for other in texts:
            if " ".join(one.split()) != " ".join(other.split()):
                assert len(set(shown_apart([one, other]))) == 2, (one, other)
    middle = ["same " * 30 + f"{number} " + "x" * 100 + str(number) for number in (1, 1)]
    assert shown_apart([middle[0], middle[0].replace("x1", "x2")])[0] != ""


def test_differing_conditions_have_each_value_once() -> None:
    found = differing_conditions([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1", "b": "2", "c": "4"}])
    assert found == {"b": ["2", "3"], "c": ["", "4"]}
    assert differing_conditions([{"a": "1"}]) == {}
