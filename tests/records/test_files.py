"""A crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from compressbench.core.errors import OutputError
from compressbench.records.files import make_folder, write_atomically


def broken(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, number: int
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(place, broken(number))
        with pytest.raises(OutputError, match=os.strerror(number)) as caught:
            write_atomically(path, b"new")
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


def test_ctrl_c_while_writing_leaves_no_part_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_the_data_is_on_the_disk_before_the_name_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(number: int) -> None:
        order.append("fsync")
        sync(number)

    def noted_replace(part: Path, path: Path) -> Path:
        order.append("replace")
        return replace(part, path)

    monkeypatch.setattr("os.fsync", noted_sync)
    monkeypatch.setattr("pathlib.Path.replace", noted_replace)
    write_atomically(tmp_path / "a", b"x")
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize("below", ["x", "x/y/z"])
def test_a_path_below_a_file_is_an_output_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"keep me")
    for write in (make_folder, lambda path: write_atomically(path, b"new")):
        with pytest.raises(OutputError, match="Choose another folder with --out"):
            write(tmp_path / "file" / below)
    assert (tmp_path / "file").read_bytes() == b"keep me"


def test_a_folder_is_made_and_proven_writable_without_a_trace(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    assert make_folder(folder) == folder


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pathlib.Path.write_bytes", broken(errno.EROFS))
    with pytest.raises(OutputError, match="Read-only file system"):
        make_folder(tmp_path / "a")
