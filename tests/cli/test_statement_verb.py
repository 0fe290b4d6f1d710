"""`compressbench statement`: its numbers are those of `carbon` and of other verbs, and each leads to its record."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import record_builder as build
from reading_verbs import say
from statement_parts import EXAMPLE, FLAGS, int8, numbers, stated, write

from compressbench.records.record import Artefact

UNHELD = tuple(flag for at, flag in enumerate(FLAGS) if not 4 <= at < 8)


@pytest.mark.parametrize("flags", [FLAGS, UNHELD, ("--region", "FRA"), ()])
def test_its_numbers_are_those_of_carbon(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    found = stated(capsys, str(EXAMPLE), "--candidate", "gptq", *flags)
    sheet = json.loads(say(capsys, "carbon", str(EXAMPLE), *flags, "--json").out)
    row = next(each for each in sheet["candidates"] if each["candidate"] == "gptq")
    compared = 0
    for number in found["numbers"]:
        if number["carbon"]:
            there: Any = row
            for name in number["carbon"].split("/"):
                there = there[name]
            same = ("value", "low", "high") if number["value"] is not None else ("value",)
            assert [number[name] for name in same] == [there[name] for name in same], number["id"]
            if "kind" in there:
                assert (number["kind"], number["reason"]) == (there["kind"], there["reason"])
            compared += 1
    assert compared >= 12
    assert found["inputs"].items() >= sheet["inputs"].items()


def test_its_energies_are_those_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(stated(capsys, str(EXAMPLE), "--candidate", "gptq"))
    rows = json.loads(say(capsys, "table", str(EXAMPLE), "--format", "json").out)
    cells = next(each for each in rows if each["candidate"] == "gptq")["cells"]
    for mine, theirs in (
        ("energy_j_per_inference", "energy_j_per_inference"),
        ("energy_wh_per_1000_inferences", "energy_wh_per_1000_queries"),
        ("energy_j_per_correct_answer", "energy_j_per_correct"),
    ):
        assert found[mine]["value"] == pytest.approx(cells[theirs]["value"], rel=1e-9)


def test_without_the_hardware_the_total_is_partial_and_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    whole = numbers(stated(capsys, str(EXAMPLE), "--candidate", "gptq", *FLAGS))
    found = stated(capsys, str(EXAMPLE), "--candidate", "gptq", *UNHELD)
    part = numbers(found)
    assert "carbon_total_per_1000_inferences" not in part
    partial = part["carbon_partial_total_per_1000_inferences"]
    assert (partial["is_partial"], partial["lacks"]) == (True, ["embodied"])
    assert partial["value"] == whole["carbon_operational_per_1000_inferences"]["value"]
    assert not whole["carbon_total_per_1000_inferences"]["is_partial"]
    assert any(line.startswith("total carbon of use is partial: embodied is missing") for line in found["not_stated"])
    assert "PARTIAL: without embodied" in say(capsys, "statement", str(EXAMPLE), "--candidate", "gptq", *UNHELD).out


def steps_of(path: str) -> list[str]:
    return re.findall(r"\.\w+|\[[^\]]*\]", path.removeprefix("$"))


def follow(data: Any, path: str) -> list[Any]:
    """As much of JSONPath (RFC 9535) as statements use."""
    found = [data]
    for step in steps_of(path):
        if step.startswith("."):
            found = [each[step[1:]] for each in found if step[1:] in each]
        elif step == "[*]":
            found = [each for many in found for each in many]
        elif name := re.fullmatch(r"\[\?@\.(\w+)=='([\w-]+)'\]", step):
            found = [each for many in found for each in many if each[name[1]] == name[2]]
        else:
            found = [many[int(step[1:-1])] for many in found]
    return found


def test_every_number_leads_to_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, int8(), build.record("other"))
    found = stated(capsys, folder, "--candidate", "int8", *FLAGS)
    records = {}
    for letter, files in found["records"].items():
        for each in files:
            data = (tmp_path / each["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == each["sha256"]
        records[letter] = [json.loads((tmp_path / each["file"]).read_text()) for each in files]
    assert [each["candidate"] for each in records["C"]] == ["baseline", "int8", "other"]
    for number in [*found["numbers"], *found["facts"]]:
        if number.get("value", number.get("text")) is not None:
            assert number["from"], number
            for place in number["from"]:
                there = [each for record in records[place["record"]] for each in follow(record, place["path"])]
                assert there, place
    assert {place["record"] for each in found["numbers"] for place in each["from"]} == {"A", "B", "C"}
    # and what is there gives the number
    paths = [place["path"] for place in numbers(found)["energy_j_per_inference"]["from"]]
    joules, calls = (follow(records["A"][0], path) for path in paths)
    by_hand = math.fsum(joules) / sum(map(len, calls))
    assert numbers(found)["energy_j_per_inference"]["value"] == pytest.approx(by_hand, rel=1e-9)


def test_what_compressing_took_stands_with_and_without_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, int8(), build.record("other"))
    found = numbers(stated(capsys, folder, "--candidate", "int8", *FLAGS))
    assert found["compress_energy_j"]["value"] == 7200
    even = json.loads(say(capsys, "breakeven", folder, "--json").out)
    cost = next(each for each in even["candidates"] if each["candidate"] == "int8")["accounts"][0]["cost"]
    with_search = found["compress_energy_with_search_j"]
    assert with_search["value"] == cost["value"]["value"] > 7200
    assert with_search["lacks"] == cost["missing"]
    assert found["compress_carbon_operational"]["value"] == pytest.approx(7200 / 3.6e6 * 1.2 * 381)


def test_what_isnt_what_it_claims_is_not_to_be_relied_on(capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "statement", str(EXAMPLE), "--candidate", "gptq-in-name", "--json")
    assert said.code == 4
    found = json.loads(said.out)
    assert found["doubts"] == [
        "false claim: 8 bits are stored per weight where 4 are claimed; no saving is based on it"
    ]
    assert all(each["value"] is None for each in found["numbers"] if "with_search" not in each["id"])
    assert "Not to be relied on" in say(capsys, "statement", str(EXAMPLE), "--candidate", "gptq-in-name").out


def test_the_artefact_is_stated_by_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = Artefact(folder="int8", num_bytes=1000, sha256="ab" * 32, max_difference=0.0)
    found = stated(capsys, write(tmp_path, int8(artefact=saved)), "--candidate", "int8")
    facts = {each["name"]: each for each in found["facts"]}
    assert "ab" * 32 in facts["artefact"]["text"]
    assert any(
        line.startswith("artefact: ") for line in stated(capsys, str(EXAMPLE), "--candidate", "baseline")["not_stated"]
    )


def test_one_model_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = say(capsys, "statement", str(EXAMPLE))
    assert (several.code, "Name one: baseline, gptq" in several.err) == (2, True)
    unknown = say(capsys, "statement", str(EXAMPLE), "--candidate", "gptqq")
    assert (unknown.code, "Did you mean 'gptq'?" in unknown.err) == (2, True)
    only = write(tmp_path, int8())
    assert stated(capsys, only)["candidate"] == "int8"


def test_it_is_written_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    line = ("statement", str(EXAMPLE), "--candidate", "gptq", "--format", "html")
    printed = say(capsys, *line).out
    said = say(capsys, *line, "--output", str(out))
    assert (said.code, said.out) == (0, "")
    assert out.read_text() == printed
    assert say(capsys, *line, "--output", str(tmp_path / "nowhere" / "page.html")).code == 2
