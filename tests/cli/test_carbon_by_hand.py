"""The example in README: its own lines, done as plain arithmetic, give what it prints and what `carbon --json` says."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from reading_verbs import say

ROOT = Path(__file__).parents[2]
_DO = {ast.Add: operator.add, ast.Mult: operator.mul, ast.Div: operator.truediv}


@pytest.fixture(scope="module")
def section() -> str:
    text = (ROOT / "README.md").read_text()
    return text.split("### Carbon, by hand\n")[1].split("\n## ")[0]


def command_in(section: str) -> list[str]:
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return shlex.split(block[1].replace("\\\n", " "))[1:]


def worked(section: str) -> dict[str, tuple[float, float]]:
    """By name of the line what it prints, and what its arithmetic gives: + * / of numbers and of earlier lines."""
    found: dict[str, tuple[float, float]] = {}
    block = re.search(r"```\n(energy .*?)```", section, re.DOTALL)
    assert block is not None
    for line in block[1].splitlines():
        name, asked, printed = re.fullmatch(r"(per correct|\w+) +(.*?) += ([0-9.e-]+)( .*)?", line).group(1, 2, 3)  # type: ignore[union-attr]
        known = {each: value for each, (_, value) in found.items()}
        found[name] = (float(printed), arithmetic(ast.parse(asked, mode="eval").body, known))
    return found


def arithmetic(node: ast.expr, known: dict[str, float]) -> float:
    if isinstance(node, ast.BinOp):
        return _DO[type(node.op)](arithmetic(node.left, known), arithmetic(node.right, known))  # type: ignore[no-any-return]
    if isinstance(node, ast.Name):
        return known[node.id]
    assert isinstance(node, ast.Constant)
    return float(node.value)  # type: ignore[arg-type]


def fast(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: list[str]) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    said = say(capsys, *line)
    assert said.code == 0, said.err
    row: dict[str, Any] = next(each for each in json.loads(said.out)["candidates"] if each["candidate"] == "fast")
    return row


def test_the_example_is_right_by_hand_and_by_the_verb(
    section: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = fast(capsys, monkeypatch, command_in(section))
    per_inference = row["consumer"]["inference"]
    said = {
        "energy": row["inputs"]["energy_j_per_inference"],
        "time": row["inputs"]["seconds_per_inference"],
        "operational": per_inference["operational"],
        "embodied": per_inference["embodied"],
        "total": per_inference["total"],
        "per correct": row["consumer"]["correct_answer"]["total"],
        "water": row["water"]["1000_inferences"],
        "cost": row["cost"]["1000_inferences"],
    }
    lines = worked(section)
    assert set(lines) == set(said)
    for name, (printed, by_hand) in lines.items():
        assert printed == pytest.approx(by_hand, rel=1e-6), name
        assert said[name]["value"] == pytest.approx(by_hand, rel=1e-6), name
    thousand = row["consumer"]["1000_inferences"]["total"]["value"]
    assert thousand == pytest.approx(1000 * lines["total"][1], rel=1e-6)


def test_its_inputs_are_those_of_the_record(section: str) -> None:
    record = json.loads(next((ROOT / "tests/data/golden/clear-winner").glob("*.fast.*.json")).read_text())
    own = [block for block in record["measurement"]["blocks"] if block["arm"] == "candidate"]
    joules = math.fsum(block["raw"]["energy_j"] for block in own)
    seconds = sum(sum(block["latencies_ns"]) for block in own) / 1e9
    calls = sum(len(block["latencies_ns"]) for block in own)
    said = re.search(
        r"has (\d+) timed calls, which took ([\d.]+) J and ([\d.]+) s, and its accuracy is ([\d.]+)\.", section
    )
    assert said is not None
    wanted = (calls, joules, seconds, record["scores"][0]["value"])
    assert [float(each) for each in said.groups()] == pytest.approx(wanted, rel=1e-8)


def test_without_the_hardware_it_is_partial_and_not_smaller(
    section: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = command_in(section)
    for flag in ("--embodied-kg", "--share"):
        at = line.index(flag)
        del line[at : at + 2]
    for score in fast(capsys, monkeypatch, line)["consumer"].values():
        assert score["total"]["value"] is None
        assert score["is_partial"]
        assert "embodied" in score["missing"]
    found = fast(capsys, monkeypatch, line)["consumer"]["inference"]
    assert found["partial_total"]["value"] == pytest.approx(worked(section)["operational"][1], rel=1e-6)
    assert "embodied is missing" in found["total"]["reason"]
