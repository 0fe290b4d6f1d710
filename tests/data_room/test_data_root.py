from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressbench.core.errors import DataError
from compressbench.data.data_root import has_data_root, reading_below
from compressbench.data.samples import load_samples
from compressbench.data.sources import LocalFiles, check_source, locate
from compressbench.data.tables import sha256_of
from compressbench.data.text import load_text

ROWS = [{"text": "one", "label": 0}, {"text": "two", "label": 1}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "mine"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "root"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside the root, of a kind that could be read."""
    path = tmp_path / "secret.jsonl"
    path.write_text('{"text": "secret", "label": 0}\n')
    return path


def test_a_source_below_the_root_is_read_and_says_nothing_of_where_the_root_lies(root: Path) -> None:
    with reading_below(root):
        samples = load_samples("root:mine", split="test", columns={"text": "text", "label": "label"})
        assert load_text("root:mine/test.jsonl", split="any", join=" ").text == "one two"
    assert samples.columns == {"text": ["one", "two"], "label": [0, 1]}
    assert samples.source == "root:mine"
    assert samples.revision == sha256_of([root / "mine" / "test.jsonl"])
    assert str(root) not in repr(samples)


def test_the_root_may_be_a_link_and_a_link_within_it_is_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    (root / "also").symlink_to("mine")
    with reading_below(tmp_path / "link") as found:
        assert found == root
        assert locate("root:also", "test") == LocalFiles((root / "also" / "test.jsonl",))


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../secret.jsonl", "mine/../../secret.jsonl", "/etc/passwd", "mine//test.jsonl", "mine/", "./mine",
     "..\\secret.jsonl", "\\\\host\\share", "C:\\rows.jsonl", "mine\0", "mine\n", "root:mine"],
)  # fmt: skip
def test_a_name_that_could_leave_the_root_is_refused(name: str, root: Path, secret: Path) -> None:
    with reading_below(root), pytest.raises(DataError, match="not a name below the data root"):
        locate(f"root:{name}", "test")
    assert secret.is_file()


def test_a_link_out_of_the_root_is_refused_wherever_it_stands(root: Path, secret: Path) -> None:
    (root / "out").symlink_to(secret.parent)
    (root / "out.jsonl").symlink_to(secret)
    (root / "mine" / "train.jsonl").symlink_to(secret)
    (root / "circle").symlink_to("circle")
    with reading_below(root):
        for source, split in [("root:out/secret.jsonl", "test"), ("root:out.jsonl", "test"), ("root:mine", "train")]:
            with pytest.raises(DataError, match="a link leaves the data root"):
                locate(source, split)
        with pytest.raises(DataError, match=r"a link that leads nowhere|no such file"):
            locate("root:circle", "test")
        locate("root:mine", "test")


def test_without_a_root_the_error_says_how_to_give_one() -> None:
    with pytest.raises(
        DataError, match=r"root:mine: there is no data root\. .*--data-root DIR, COMPRESSBENCH_DATA_ROOT"
    ):
        check_source("root:mine", "test")


def test_what_is_not_there_is_named(root: Path) -> None:
    with reading_below(root), pytest.raises(DataError, match=r"no such file.*Did you mean 'mine'\?"):
        locate("root:mnie", "test")
    with reading_below(root), pytest.raises(DataError, match=r"no file of that split.*got 'train'"):
        locate("root:mine", "train")


@pytest.mark.parametrize("name", ["nowhere", "root/mine/test.jsonl"])
def test_a_root_that_is_no_folder_is_refused(name: str, root: Path) -> None:
    with pytest.raises(DataError, match="the data root is no folder"), reading_below(root.parent / name):
        pass


def test_a_root_lasts_as_long_as_its_block(root: Path, tmp_path: Path) -> None:
    assert not has_data_root()
    with reading_below(root):
        with reading_below(tmp_path):
            assert locate("root:root/mine", "test")
        with reading_below(None) as found:
            assert found == root
            assert locate("root:mine", "test")
    with pytest.raises(ZeroDivisionError), reading_below(root):
        raise ZeroDivisionError
    assert not has_data_root()
