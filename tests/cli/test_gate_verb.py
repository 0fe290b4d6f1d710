"""`gate`: exit codes and files for CI."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import decided
import pytest

from compressbench.cli.main import call

EDGE = Path(__file__).parent.parent / "data" / "policies" / "edge.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return decided.stored(
        tmp_path / "records",
        *decided.run(
            decided.candidate("good", 0.005, disk_bytes=45e6, peak_memory_bytes=60e6),
            decided.candidate("bad", 0.005, lost=300, won=1, peak_memory_bytes=60e6),
            decided.candidate("unsure", 0.005, lost=150, won=130, peak_memory_bytes=60e6),
        ),
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--candidate", "good"], 0),
        (["--candidate", "good", "--candidate", "unsure"], 2),
        ([], 1),
        (["--candidate", "god"], 2),
        (["--candidate", "good", "--max-memory-gb", "0.05"], 1),
        (["--candidate", "bad", "--max-accuracy-drop", "0.2"], 0),
        (["--candidate", "good", "--recipe", "another"], 2),
    ],
)
def test_exit_codes(words: list[str], code: int, folder: Path) -> None:
    assert call(["gate", str(folder), "--policy", str(EDGE), *words]) == code


def test_a_missing_requirement_is_exit_4(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text("require: [ttft_p50_s]\ncandidates: [good]\n")
    assert call(["gate", str(folder), "--policy", str(policy)]) == 4
    out, err = capsys.readouterr()
    assert "A REQUIRED MEASUREMENT IS MISSING" in out
    assert "ttft_p50_s is required" in err


def test_without_any_goal_it_is_inconclusive(folder: Path) -> None:
    assert call(["gate", str(folder)]) == 2


def test_the_files_and_the_terminal_say_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    summary, junit = tmp_path / "summary.md", tmp_path / "junit.xml"
    words = ["gate", str(folder), "--policy", str(EDGE), "--markdown", str(summary), "--junit", str(junit)]
    assert call(words) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED  of 3 candidates 1 failed, 1 inconclusive, 1 passed\n")
    assert max(map(len, out.splitlines())) <= 100
    assert "Of 3 candidates 1 failed, 1 inconclusive, 1 passed." in summary.read_text()
    assert ElementTree.parse(junit).getroot().get("failures") == "1"  # noqa: S314 -- we wrote it
    assert call([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1


def test_a_folder_that_can_not_be_written_is_told(folder: Path, tmp_path: Path) -> None:
    assert call(["gate", str(folder), "--policy", str(EDGE), "--junit", str(tmp_path / "no" / "x.xml")]) == 2
