from __future__ import annotations

import csv
import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compressbench.core.errors import DataError
from compressbench.data.samples import Samples, load_samples, to_labels

COLUMNS = {"text": "text", "label": "label"}
ROWS = [
    {"text": "first, with a comma", "label": 1},
    {"text": 'second with "quotes"\nand a line', "label": 0},
    {"text": "Dritter: äöü € \u2028 end", "label": 2},
]

Write = Callable[[Path, Sequence[dict[str, Any]]], None]


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], class_names: Sequence[str] = ()) -> None:
    table = pa.Table.from_pylist(list(rows))
    if class_names:
        features = {"text": {"dtype": "string"}, "label": {"names": list(class_names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)


def load(source: Path | str, **changes: Any) -> Samples:
    return load_samples(str(source), **({"split": "test", "columns": COLUMNS} | changes))


def jsonl(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    write_jsonl(folder / "rows.jsonl", rows)
    return folder / "rows.jsonl"


@pytest.mark.parametrize(
    ("name", "write"),
    [("rows.parquet", write_parquet), ("rows.jsonl", write_jsonl), ("rows.json", write_json), ("rows.csv", write_csv)],
)
def test_every_format_gives_the_rows_that_were_written(tmp_path: Path, name: str, write: Write) -> None:
    write(tmp_path / name, ROWS)
    samples = load(tmp_path / name)
    assert samples.columns == {"text": [row["text"] for row in ROWS], "label": [1, 0, 2]}
    assert samples.ids == ("0", "1", "2")
    assert samples.label_names is None
    assert samples.revision == f"sha256:{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}"


def test_banking77_has_its_published_sizes_and_77_named_labels() -> None:
    train = load("embedded:banking77", split="train")
    test = load("embedded:banking77")
    assert (len(train), len(test)) == (10_003, 3_080)
    assert train.label_names == test.label_names
    assert train.label_names is not None
    assert train.label_names == tuple(sorted(train.label_names, key=str.lower))
    assert set(train.columns["label"]) == set(test.columns["label"]) == set(range(77))
    assert {test.columns["label"].count(label) for label in range(77)} == {40}
    assert test.columns["text"][0] == "How do I locate my card?"
    assert test.label_names is not None
    assert test.label_names[test.columns["label"][0]] == "card_arrival"


def test_class_label_names_come_from_the_parquet_schema(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet", ROWS, ["no", "yes", "maybe"])
    samples = load(tmp_path / "rows.parquet")
    assert samples.label_names == ("no", "yes", "maybe")
    assert samples.columns["label"] == [1, 0, 2]


def test_a_schema_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS).replace_schema_metadata({b"huggingface": b'{"info": 3}'})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: the 'huggingface' schema"):
        load(tmp_path / "rows.parquet")


def test_label_names_are_numbered_over_the_whole_split_and_not_over_the_limit(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [{"text": "x", "label": name} for name in ("spam", "ham", "eggs")])
    samples = load(source, limit=1)
    assert samples.label_names == ("eggs", "ham", "spam")
    assert samples.columns["label"] == [2]


def test_numbers_written_as_text_stay_numbers() -> None:
    values = [str(number) for number in range(12)]
    assert to_labels(values, None, "here") == (list(range(12)), None)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, -1], None, r"row 1: a label must be an integer from 0 up \(got -1\).*withheld"),
        ([0, 3], ("a", "b", "c"), r"row 1: a label must be an integer from 0 to 2 \(got 3\)"),
        ([0.5], None, r"must be an integer from 0 up \(got 0\.5\)"),
        ([True, False], None, r"must be an integer from 0 up \(got True\)"),
        (["1", "two"], None, r"all numbers or all names \(got '1' and 'two'\)"),
        (["ham", ""], None, r"row 1: a label is missing"),
        (["hem"], ("eggs", "ham"), r"not one of the label names \(got 'hem'\)\. Did you mean 'ham'\?"),
    ],
)
def test_a_label_that_is_no_class_number_is_an_error(
    labels: list[Any], names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        to_labels(labels, names, "rows.jsonl, column 'label'")


def test_a_limit_takes_the_first_rows_and_keeps_their_ids(tmp_path: Path) -> None:
    source = jsonl(tmp_path, ROWS)
    whole = load(source)
    assert load(source, limit=2) == whole.take(2)
    assert whole.take(2).ids == whole.ids[:2]
    assert whole.take(99) == load(source, limit=99) == whole
    with pytest.raises(DataError, match=r"at least one sample is needed \(got limit 0\)"):
        load(source, limit=0)


def test_shards_of_a_split_are_read_in_order(tmp_path: Path) -> None:
    for shard in (1, 0):
        write_parquet(tmp_path / f"test-0000{shard}-of-00002.parquet", [{"text": f"{shard}{row}"} for row in range(3)])
    samples = load(tmp_path, columns={"text": "text"})
    assert samples.columns["text"] == ["00", "01", "02", "10", "11", "12"]
    assert samples.ids == ("0", "1", "2", "3", "4", "5")
    both = b"".join((tmp_path / f"test-0000{shard}-of-00002.parquet").read_bytes() for shard in (0, 1))
    assert samples.revision == f"sha256:{hashlib.sha256(both).hexdigest()}"


def test_shards_with_different_columns_are_an_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test-0.parquet", [{"text": "x"}])
    write_parquet(tmp_path / "test-1.parquet", [{"words": "x"}])
    with pytest.raises(DataError, match="the shards have different columns"):
        load(tmp_path, columns={"text": "text"})


def test_a_pinned_checksum_must_be_that_of_the_file(tmp_path: Path) -> None:
    source = jsonl(tmp_path, ROWS)
    pinned = load(source).revision
    assert load(source, revision=pinned).revision == pinned
    write_jsonl(source, ROWS[:2])
    with pytest.raises(DataError, match=rf"not the pinned ones \(got revision {pinned}\)\. They have sha256:"):
        load(source, revision=pinned)


def test_a_local_file_has_no_configurations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="config 'xl'"):
        load(jsonl(tmp_path, ROWS), config="xl")


def test_a_missing_column_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"rows\.jsonl: no column 'labels' for the label .*text, label\)\. Did you mean 'label'"
    ):
        load(jsonl(tmp_path, ROWS), columns={"text": "text", "label": "labels"})


@pytest.mark.parametrize("row", [{"text": None, "label": 1}, {"label": 1}])
def test_a_null_in_a_needed_column_is_an_error_that_names_the_row(tmp_path: Path, row: dict[str, Any]) -> None:
    source = jsonl(tmp_path, [*ROWS, row])
    with pytest.raises(DataError, match=r"column 'text', row 3: a needed value is missing \(got null in 1 of 4 rows\)"):
        load(source)
    assert len(load(source, columns={"label": "label"})) == 4


def test_a_column_that_only_later_rows_have_is_seen(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [{"text": "x"}, {"text": "y", "label": 1}])
    with pytest.raises(DataError, match="column 'label', row 0: a needed value is missing"):
        load(source)


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", ""), ("rows.json", "[]"), ("rows.csv", "text,label\n"), ("rows.csv", "")],
)
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}: the data set is empty \(got 0 rows\)"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"text": "x", "label": 0}\n{"text": ', r"rows\.jsonl:2: not JSON"),
        ("rows.jsonl", b"[1]\n", r"rows\.jsonl\[0\]: a row is an object \(got int\)"),
        ("rows.jsonl", b'"x"\n', r"rows\.jsonl:1: a row is an object \(got str\)"),
        ("rows.jsonl", b"\xff\xfe", r"rows\.jsonl: not UTF-8"),
        ("rows.jsonl", b"[" * 100_000, r"rows\.jsonl: not JSON"),
        ("rows.json", b"{", r"rows\.json:1: not JSON"),
        ("rows.jsonl", b'{"text": "x"}\n{"text": 3}', r"a column holds values of different types"),
        ("rows.csv", b"text,label\nHello, world,1\n", r"rows\.csv:2: more fields than the header has"),
        ("rows.csv", b'text,label\n"open,1\n', r"rows\.csv: not a readable CSV file"),
        ("rows.parquet", b"PAR1 or not", r"rows\.parquet: not a readable Parquet file"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


def test_a_text_that_is_no_string_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'label', row 0: a text must be a string \(got 1\)"):
        load(jsonl(tmp_path, ROWS), columns={"text": "label"})


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("\ufefftext,label\nx,0\n".encode())
    assert load(tmp_path / "rows.csv").columns["text"] == ["x"]


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["rows.pkl", "rows.pt", "rows.py"])
def test_pickles_and_scripts_are_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DataError, match="pickles and scripts can run code and are never opened"):
        load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_samples_refuse_ids_that_repeat_and_columns_of_another_length() -> None:
    with pytest.raises(DataError, match="sample ids must differ"):
        Samples("here", "test", "r", ("0", "0"), {"text": ["a", "b"]}, None)
    with pytest.raises(DataError, match=r"every column must have 2 rows \(got {'text': 1}\)"):
        Samples("here", "test", "r", ("0", "1"), {"text": ["a"]}, None)


def test_importing_the_data_room_imports_nothing_heavy() -> None:
    script = (
        "import sys, compressbench.data.samples, compressbench.data.text\n"
        "heavy = {'pyarrow', 'datasets', 'huggingface_hub', 'numpy', 'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert child.returncode == 0, child.stderr
