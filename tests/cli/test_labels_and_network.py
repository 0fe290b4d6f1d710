"""Every lifecycle verb with the network blocked, and no number of theirs without a label and a source."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reading_verbs import say

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden"
EXAMPLE = ROOT / "tests" / "data" / "records-v4"
CPU = ROOT / "results" / "quickstart"
PRICED = ("--price-per-kwh", "0.3", "--price-per-hour", "2", "--currency", "EUR")
LOAD = ("--requests-per-day", "1e6", "--lifetime-years", "3")
LINES = {
    "carbon": ("carbon", str(EXAMPLE), "--region", "FRA", *PRICED),
    "carbon-by-default": ("carbon", str(CPU)),
    "carbon-of-a-site": ("carbon", str(CPU), "--site", "google", "--wue-grid", "2", "--end-of-life-kg", "10"),
    "breakeven": ("breakeven", str(GOLDEN / "clear-winner"), "--grid-g-per-kwh", "381", *PRICED, *LOAD),
    "breakeven-by-default": ("breakeven", str(CPU)),
    "fleet": ("fleet", str(GOLDEN / "clear-winner"), *LOAD, "--idle-watts", "3", "--grid-g-per-kwh", "381", *PRICED),
    "fleet-by-default": ("fleet", str(CPU), *LOAD),
    "statement": ("statement", str(CPU), "--candidate", "int8-dynamic", "--region", "USA-CA"),
    "statement-by-default": ("statement", str(EXAMPLE), "--candidate", "gptq"),
}
# the labels of a model card stand in the names of its metrics, which the Hub shows
NOT_QUANTITIES = {"model_card"}


def unlabelled(data: Any, path: str = "$", label: str = "", source: str = "") -> Iterator[str]:
    """Numbers whose own object, or the nearest around it that has one, has no kind; and those without a source."""
    if isinstance(data, dict):
        label, source = data.get("kind", label), data.get("source", source)
        for name, each in data.items():
            if name not in NOT_QUANTITIES:
                yield from unlabelled(each, f"{path}.{name}", label, source)
    elif isinstance(data, list):
        for at, each in enumerate(data):
            yield from unlabelled(each, f"{path}[{at}]", label, source)
    elif isinstance(data, (int, float)) and not isinstance(data, bool) and not path.endswith(".year"):
        if not label:
            yield f"{path} = {data} has no kind"
        if not source:
            yield f"{path} = {data} has no source"


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_no_number_is_without_its_label(line: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, *line, "--json")
    assert said.code == 0, said.err
    data = json.loads(said.out)
    assert list(unlabelled(data)) == []
    assert sum(1 for _ in numbers_in(data)) > 20


def numbers_in(data: Any) -> Iterator[float]:
    if isinstance(data, (dict, list)):
        for each in data.values() if isinstance(data, dict) else data:
            yield from numbers_in(each)
    elif isinstance(data, (int, float)) and not isinstance(data, bool):
        yield data


def test_the_walk_finds_a_number_without_a_label() -> None:
    assert list(unlabelled({"a": [{"value": 1.0, "kind": ""}]})) == [
        "$.a[0].value = 1.0 has no kind",
        "$.a[0].value = 1.0 has no source",
    ]
    assert not list(unlabelled({"kind": "given", "source": "--x", "inner": {"value": 2}}))


def test_what_was_assumed_by_default_says_so_in_all_that_follows(capsys: pytest.CaptureFixture[str]) -> None:
    assumed = json.loads(say(capsys, *LINES["carbon-by-default"], "--json").out)
    assert {assumed["inputs"][name]["kind"] for name in ("grid", "pue", "lifetime", "utilisation")} == {"assumed"}
    for row in assumed["candidates"]:
        for score in row["consumer"].values():
            for part in ("operational", "embodied", "total"):
                assert score[part]["value"] is None or "assumed" in score[part]["kind"]
    fleet = json.loads(say(capsys, *LINES["fleet-by-default"], "--json").out)
    assert {name: fleet["inputs"][name]["kind"] for name in ("utilisation", "peak_factor", "requests_per_day")} == {
        "utilisation": "assumed",
        "peak_factor": "assumed",
        "requests_per_day": "given",
    }
    stated = json.loads(say(capsys, *LINES["statement-by-default"], "--json").out)
    carbon = [each for each in stated["numbers"] if each["section"] == "carbon" and each["value"] is not None]
    assert carbon
    assert all("assumed" in each["kind"] for each in carbon)


BLOCKED = """
import socket, sys
def refuse(*_, **__):
    raise RuntimeError("a network")
socket.socket.connect = socket.socket.connect_ex = socket.socket.bind = socket.socket.sendto = refuse
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
"""


def test_with_the_network_blocked_every_lifecycle_verb_works(tmp_path: Path) -> None:
    """In one process of its own, into which the refusal is brought before anything else is imported."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    lines = [
        *LINES.values(),
        ("frontier", str(GOLDEN / "clear-winner")),
        *(("carbon", str(GOLDEN / "tie"), "--region", region) for region in ("SE1", "CAN-ontario", "CN-BJ")),
        ("statement", str(EXAMPLE), "--candidate", "gptq", "--region", "gcp:europe-west1", "--format", "html"),
    ]
    script = (
        "import json, socket, sys\n"
        "from compressbench.cli.main import call\n"
        "try:\n    socket.create_connection(('127.0.0.1', 9))\n"
        "except RuntimeError:\n    print('BLOCKED')\n"
        "print('CODES', [call(line) for line in json.loads(sys.argv[1])])\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(lines)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert "BLOCKED" in done.stdout, done.stderr
    assert f"CODES {[0] * len(lines)}" in done.stdout, done.stderr
    assert "a network" not in done.stderr
