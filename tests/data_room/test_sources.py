from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal, NoReturn

import pytest

from compressbench.core.errors import DataError
from compressbench.data.sources import HubSource, LocalFiles, check_source, locate


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_socket: socket.socket, address: object) -> NoReturn:
        raise AssertionError(f"the network was asked: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("source", "split", "form"),
    [
        ("embedded:banking77", "train", "samples"),
        ("embedded:banking77", "test", None),
        ("embedded:tinyshakespeare", "test", "text"),
        ("PolyAI/banking77", "test", "samples"),
        ("Salesforce/wikitext", "test", "text"),
    ],
)
def test_good_sources_pass_without_a_network(source: str, split: str, form: Literal["samples", "text"] | None) -> None:
    check_source(source, split, form=form)


@pytest.mark.parametrize(
    ("source", "split", "form", "message"),
    [
        ("embedded:banking7", "test", None, r"no embedded data of that name .*Did you mean 'banking77'\?"),
        ("embedded:banking77", "tset", None, r"embedded:banking77: no such split \(got 'tset'\)\. Did you mean 'test'"),
        ("embedded:banking77", "dev", None, r"no such split \(got 'dev'\)\. Known: test, train\."),
        ("embedded:tinyshakespeare", "test", "samples", r"no embedded samples of that name"),
        ("embedded:banking77", "test", "text", r"no embedded text of that name"),
        ("banking77", "test", None, r"not a data source \(got 'banking77'\).*Did you mean 'embedded:banking77'"),
        ("embeded:banking77", "test", None, r"not a data source .*Did you mean 'embedded:banking77'"),
        ("a/b/c", "test", None, r"not a data source \(got 'a/b/c'\)"),
        ("https://example.org/x", "test", None, r"not a data source"),
        ("", "test", None, r"not a data source \(got ''\)"),
        ("owner/name", "test[:100]", None, r"a split is a plain name \(got 'test\[:100\]'\).*set a limit"),
        ("owner/name", "../test", None, r"a split is a plain name"),
    ],
)
def test_a_wrong_source_is_an_error_with_the_nearest_right_word(
    source: str, split: str, form: Literal["samples", "text"] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check_source(source, split, form=form)


@pytest.mark.parametrize("source", ["./owner/name", "../name", "/no/such/place", "~/no-such-data", "owner/rows.jsonl"])
def test_what_looks_local_is_never_a_hub_id(source: str) -> None:
    with pytest.raises(DataError, match="no such file"):
        check_source(source, "test")


def test_a_folder_that_exists_is_taken_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "test.csv").write_text("text\nx\n")
    assert locate("owner/name", "test") == HubSource("owner/name")
    monkeypatch.chdir(tmp_path)
    assert locate("owner/name", "test") == LocalFiles((Path("owner/name/test.csv"),))


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").touch()
    with pytest.raises(DataError, match=r"tset\.jsonl: no such file\. Did you mean 'test\.jsonl'\?"):
        check_source(str(tmp_path / "tset.jsonl"), "test")


def test_a_missing_split_names_those_that_are_there(tmp_path: Path) -> None:
    for name in ("train.parquet", "validation-00000-of-00001.parquet", "notes.md", "test.pkl"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"\(got 'test'\)\. .*Known: train, validation\."):
        check_source(str(tmp_path), "test")


def test_a_split_that_two_files_could_be_is_an_error(tmp_path: Path) -> None:
    for name in ("test.parquet", "test.csv", "test-00000-of-00001.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"more than one file could be split 'test' \(got .*test\.csv"):
        check_source(str(tmp_path), "test")


@pytest.mark.parametrize("there", [["00000-of-00002"], ["00000-of-00002", "00001-of-00003"], ["00000-of-00001", "7"]])
def test_shards_must_be_complete(tmp_path: Path, there: list[str]) -> None:
    for shard in there:
        (tmp_path / f"test-{shard}.parquet").touch()
    with pytest.raises(DataError, match=r"shards were announced .*Copy the missing files"):
        check_source(str(tmp_path), "test")


def test_a_format_that_is_not_read_lists_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "rows.xml").touch()
    with pytest.raises(DataError, match=r"not read here \(got \.xml\)\. Convert it to one of \.parquet, "):
        check_source(str(tmp_path / "rows.xml"), "test", form="samples")
    (tmp_path / "rows.txt").touch()
    check_source(str(tmp_path / "rows.txt"), "test", form="text")
    with pytest.raises(DataError, match=r"not read here \(got \.txt\)"):
        check_source(str(tmp_path / "rows.txt"), "test", form="samples")


def test_shards_are_ordered_by_their_number_and_a_longer_name_is_another_split(tmp_path: Path) -> None:
    for name in ("test-10", "test-9", "test-clean", "test-clean-00000-of-00001-0123456789abcdef"):
        (tmp_path / f"{name}.parquet").touch()
    assert locate(str(tmp_path), "test") == LocalFiles((tmp_path / "test-9.parquet", tmp_path / "test-10.parquet"))
    with pytest.raises(DataError, match="more than one file could be split 'test-clean'"):
        locate(str(tmp_path), "test-clean")
