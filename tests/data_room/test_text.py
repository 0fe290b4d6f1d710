from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from compressbench.core.errors import DataError
from compressbench.data import text as text_module
from compressbench.data.embedded_data import embedded_path
from compressbench.data.text import load_text

WHOLE = "Ein Satz.\r\nZwei Sätze.\u2028Ende.\n"


def write(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def test_tinyshakespeare_is_cut_at_nine_tenths_of_its_characters() -> None:
    whole = gzip.decompress(embedded_path("tinyshakespeare", "input.txt.gz").read_bytes()).decode()
    train, test = (load_text("embedded:tinyshakespeare", split=split) for split in ("train", "test"))
    assert len(whole) == 1_115_394
    assert train.text + test.text == whole
    assert len(train.text) == 1_003_854
    assert train.text.startswith("First Citizen:\nBefore we proceed any further")
    assert train.revision == test.revision


@pytest.mark.parametrize("name", ["all.txt", "all.txt.gz"])
def test_a_text_file_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    text = load_text(write(tmp_path / name, WHOLE.encode()), split="test")
    assert text.text == WHOLE
    assert text.revision == f"sha256:{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}"


def test_a_folder_holds_one_file_for_each_split(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", b"learn")
    write(tmp_path / "test.txt.gz", b"ask")
    assert load_text(str(tmp_path), split="train").text == "learn"
    assert load_text(str(tmp_path), split="test").text == "ask"


def test_a_column_of_a_table_is_joined(tmp_path: Path) -> None:
    rows = [{"story": "one"}, {"story": ""}, {"story": "two"}]
    source = write(tmp_path / "test.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert load_text(source, split="test", column="story").text == "one\n\n\n\ntwo"
    assert load_text(source, split="test", column="story", join="|").text == "one||two"
    with pytest.raises(DataError, match=r"no column 'text' for the text \(got columns story\)"):
        load_text(source, split="test")


def test_a_gzip_file_that_expands_too_far_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MAX_TEXT_BYTES", 1000)
    load_text(write(tmp_path / "fits.txt.gz", b"x" * 1000), split="test")
    bomb = write(tmp_path / "bomb.txt.gz", b"x" * 1001)
    assert Path(bomb).stat().st_size < 100
    with pytest.raises(DataError, match=r"bomb\.txt\.gz: the text is too large \(got more than 1000 bytes unpacked\)"):
        load_text(bomb, split="test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.txt", b"caf\xe9", r"bad\.txt: not UTF-8 text"),
        ("bad.txt", b" \n ", r"bad\.txt: the text is empty \(got 3 characters\)"),
        ("bad.txt.gz", b"plain", r"bad\.txt\.gz: not a whole gzip file"),
        ("bad.txt.gz", gzip.compress(b"x" * 100, mtime=0)[:-9], r"bad\.txt\.gz: not a whole gzip file"),
        ("bad.jsonl", b'{"text": ""}', r"bad\.jsonl: the text is empty"),
    ],
)
def test_a_damaged_or_empty_text_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_text(str(tmp_path / name), split="test")


def test_a_pinned_checksum_must_be_that_of_the_text(tmp_path: Path) -> None:
    source = write(tmp_path / "all.txt", WHOLE.encode())
    assert load_text(source, split="test", revision=load_text(source, split="test").revision).text == WHOLE
    with pytest.raises(DataError, match=r"not the pinned ones \(got revision main\)"):
        load_text(source, split="test", revision="main")
    with pytest.raises(DataError, match="config 'raw'"):
        load_text(source, split="test", config="raw")
