"""One changed byte of a record is noticed and said, wherever it stands, and all other records are read as before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from reading_verbs import OF_ONE_FILE, VERBS, command_line, formats, say

from compressbench.records.store import read_records

GOLDEN = Path(__file__).parent / "data" / "golden" / "clear-winner"
NAME = "example.middling.20261122T074513.926665Z.json"
DATA = (GOLDEN / NAME).read_bytes()


def positions() -> Iterator[int]:
    """All of the checksum and the version, the last bytes, every line end and the one after it, and 120 others."""
    yield from range(120)
    yield from range(len(DATA) - 20, len(DATA))
    yield from (at + step for at, byte in enumerate(DATA[:-1]) if byte == ord("\n") for step in (0, 1))
    yield from random.Random(0).sample(range(len(DATA)), 120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in GOLDEN.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(folder: Path, at: int, mask: int) -> Path:
    path, data = folder / NAME, bytearray(DATA)
    data[at] ^= mask
    path.write_bytes(data)
    return path


def test_it_is_said_in_one_line_that_names_the_file(folder: Path) -> None:
    for at in sorted(set(positions())):
        path = change(folder, at, 0x20 if at % 2 else 0x01)
        records, unreadable = read_records([folder])
        assert [record.candidate for record in records] == ["baseline", "fast"], at
        assert [each.path for each in unreadable] == [path]
        assert unreadable[0].reason.startswith(f"{path}: ")
        assert unreadable[0].reason.isprintable()


@pytest.mark.parametrize("at", [3, 12, 90, 5000, len(DATA) - 2])
def test_every_verb_says_it_and_goes_on_with_the_others(
    folder: Path, at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = change(folder, at, 0x01)
    policy = tmp_path / "policy.yaml"
    policy.write_text("goals:\n  accuracy: {max-degradation: 0.05}\n")
    honest = folder / NAME.replace("middling", "fast")
    places = {"file": path, "honest": honest, "folder": folder, "policy": policy, "out": tmp_path / "out"}
    for verb in VERBS:
        said = say(capsys, *command_line(verb, formats(verb)[-1], places))
        about_it = [line for line in said.err.splitlines() if str(path) in line]
        assert len(about_it) == 1, verb
        if verb in OF_ONE_FILE:
            assert (said.code, said.out) == (2, "")
        else:
            # `audit` says by its exit code that a file can't be read; all others answer from what is left, where there
            # is nothing for `think`: no record has several samples of a question
            assert said.code == {"audit": 2, "think": 4}.get(verb, 0), verb
            if verb == "think":
                continue
            assert "fast" in said.out
            assert "middling" not in said.out
