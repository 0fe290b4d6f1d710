"""`compressbench think`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import record_builder as build
import think_parts as parts
from reading_verbs import text_within
from think_parts import Model, even

from compressbench.cli.main import call
from compressbench.records.store import RecordStore


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return parts.write(tmp_path / "records", {"big": Model(even(0.6)), "small": Model(even(0.45), 0.2)})


@pytest.mark.parametrize("width", [80, 120])
def test_it_says_what_to_deploy_at_equal_energy(folder: str, capsys: pytest.CaptureFixture[str], width: int) -> None:
    text = text_within(capsys, width, "think", folder)
    assert "At equal energy deploy small" in text
    assert "1 of 1 rankings reversed" in text
    assert "modelled, counted tokens times the rate of a token, which is estimated" in text


def test_json_has_every_point_and_every_budget(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["think", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in found["rows"]] == ["baseline", "small"]
    assert [point["k"] for point in found["rows"][0]["points"]] == [1, 2, 4, 8, 16]
    assert found["rows"][0]["joules"]["kind"] == "modelled"
    assert found["num_reversed"] == 1
    assert found["pairs"][0]["budgets"][0]["num_other"] in (4, 5)
    assert found["leaders"][-1]["bought"]["small"] == 16


def test_a_picture_is_written(folder: str, tmp_path: Path) -> None:
    assert call(["think", folder, "--svg", str(tmp_path / "t.svg")]) == 0
    assert (tmp_path / "t.svg").read_text().startswith("<svg")
    assert call(["think", folder, "--svg", str(tmp_path / "none" / "t.svg")]) == 2


def test_exit_codes(folder: str, tmp_path: Path) -> None:
    RecordStore(tmp_path / "one").append(build.record())
    assert call(["think", str(tmp_path / "one")]) == 4
    other = build.environment(cpu_model="Another CPU")
    both = parts.write(Path(folder), {"far": Model(even(0.5))}, name="far", environment=other)
    assert call(["think", both]) == 5
    assert call(["think", both, "--recipe", "far"]) == 0
    assert call(["think", both, "--force"]) == 0
