"""Ready-made tasks down the whole line: from a data root, and with the same file from a Hub."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stand_in import HubStandIn
from line_parts import recipe_data, write_model, write_recipe

from compressbench.cli.main import call
from compressbench.data.data_root import has_data_root
from compressbench.data.tables import sha256_of
from compressbench.plan import plan_file
from compressbench.run import run_recipe

WORDS = ["the cat sat", "a dog ran home", "the dog is very good", "not a good home", "the mat is bad", "very bad"]
NAMES = ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]
PLENTY = {"train": 24, "test": 18}


def parquet(split: str) -> bytes:
    """Questions in the form of TREC, with the names of the classes as `datasets` writes them."""
    rows = [
        {"text": " ".join([*(["bad"] * (split == "train")), WORDS[i % 6]]), "coarse_label": (i * 5) % 6}
        for i in range(PLENTY[split])
    ]
    features = {"coarse_label": {"names": NAMES, "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}})}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), buffer)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "copies" / "trec"
    folder.mkdir(parents=True)
    for split in PLENTY:
        (folder / f"{split}.parquet").write_bytes(parquet(split))
    return folder.parent


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    candidates = [{"name": "half", "compress": [{"use": "wanda", "sparsity": 0.5}]}]
    data = recipe_data(write_model(tmp_path / "model", num_labels=6), tmp_path, candidates)
    tasks = [{"use": "trec", "batch_size": 4}, {"use": "trec", "limit": 5, "stratum": ""}]
    return write_recipe(tmp_path / "recipe.yaml", {**data, "tasks": tasks})


def test_a_ready_made_task_is_run_on_the_local_copy(
    recipe: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = []
    for record in run_recipe(recipe, tmp_path / "out", data_root=root):
        assert not has_data_root(), "what is done between two records sees no data root"
        records.append(record)
    assert [record.status for record in records] == ["ok", "ok"], records[-1].failure
    for record in records:
        first, second = record.scores
        assert (first.data, first.split, first.num_samples, second.num_samples) == ("root:trec", "test", 18, 5)
        assert first.data_revision == sha256_of([root / "trec" / "test.parquet"])
        assert first.options["stratum"] == "language"
        assert (first.samples_file.count("trec."), second.samples_file.count("trec-2.")) == (1, 1)
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json*"))
    assert "root:trec" in written
    assert str(root) not in written
    # the same data elsewhere are the same cells
    moved = root.rename(tmp_path / "moved")
    assert list(run_recipe(recipe, tmp_path / "out", data_root=moved, resume=True)) == []
    capsys.readouterr()
    arguments = ["--out", str(tmp_path / "out"), "--data-root", str(moved), "--resume", "--json"]
    assert call(["run", str(recipe), *arguments]) == 0
    assert [row["candidate"] for row in json.loads(capsys.readouterr().out)] == ["baseline", "half"]


@pytest.mark.parametrize("verb", ["validate", "plan"])
def test_the_verbs_take_the_data_root_from_an_option_or_the_environment(
    verb: str, recipe: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMPRESSBENCH_DATA_ROOT", raising=False)
    expected = plan_file(str(recipe), data_root=root).recipe_hash

    def found(*arguments: str) -> str:
        assert call([verb, str(recipe), "--json", *arguments]) == 0
        return str(json.loads(capsys.readouterr().out)["hash"])

    assert found("--data-root", str(root)) == expected
    assert found() != expected
    monkeypatch.setenv("COMPRESSBENCH_DATA_ROOT", str(root))
    assert found() == expected
    assert call([verb, str(recipe), "--data-root", str(root / "nowhere")]) == 2
    assert "the data root is no folder" in capsys.readouterr().err


def test_a_plan_says_where_the_data_of_a_task_come_from(
    recipe: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMPRESSBENCH_DATA_ROOT", raising=False)
    assert call(["plan", str(recipe), "--data-root", str(root)]) == 0
    assert "\n  trec-2: text-classification on root:trec, split test\n" in capsys.readouterr().out
    assert call(["plan", str(recipe), "--data-root", str(root / "trec")]) == 0
    assert "\n  trec: text-classification on CogComp/trec, split test\n" in capsys.readouterr().out
    assert call(["plan", str(recipe), "--data-root", str(root), "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    assert [(task["label"], task["use"], task["data"]) for task in tasks] == [
        ("trec", "text-classification", "root:trec"),
        ("trec-2", "text-classification", "root:trec"),
    ]


def test_run_hands_the_data_root_on(recipe: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def stopped(*_arguments: object, **options: Any) -> Iterator[Any]:
        asked.append(options["data_root"])
        raise KeyboardInterrupt

    monkeypatch.setattr("compressbench.run.run_recipe", stopped)
    call(["run", str(recipe), "--out", str(tmp_path / "out"), "--data-root", str(root)])
    assert asked == [root]


def test_the_listing_has_ready_made_tasks_with_their_data_and_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["list", "tasks", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["banking77"]["kind"] == "text-classification"
    assert found["banking77"]["licence"] == "CC BY 4.0"
    assert found["rte"]["sets"]["config"] == "rte"
    assert "is_ready_made" not in found["perplexity"]
    assert call(["list", "tasks"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "text-classification on CogComp/trec, licence of the data: not stated by its authors" in text
    assert "pin it with `revision`" in text
    assert call(["list", "methods"]) == 0
    assert "Ready-made" not in capsys.readouterr().out


LOAD = """
from compressbench.core import registry
from compressbench.data.data_root import reading_below
from compressbench.recipe.use import Use
from compressbench.tasks.ready_made import fill_in

def load(root):
    with reading_below(root):
        kind, options = fill_in(Use(name="trec"))
        samples = registry.tasks.resolve(kind)(**options).load()
    return [samples.source, samples.revision, samples.ids, samples.columns, samples.label_names]

print(json.dumps([load(None), load(given["root"])]))
"""


def test_one_file_reads_the_same_samples_from_the_hub_and_from_a_local_copy(root: Path, tmp_path: Path) -> None:
    with HubStandIn() as hub:
        hub.commit("dataset", "CogComp/trec", {"trec.py": b"raise SystemExit", "README.md": b"# TREC\n"})
        tables = {f"default/{split}/0000.parquet": parquet(split) for split in PLENTY}
        commit = hub.commit("dataset", "CogComp/trec", tables, branch="refs/convert/parquet")
        from_hub, from_root = hub.run_child(LOAD, home=tmp_path / "home", root=str(root))
        offline, _ = hub.run_child(LOAD, home=tmp_path / "home", is_offline=True, root=str(root))
    assert from_hub == offline
    assert from_hub[:2] == ["CogComp/trec", commit]
    assert from_root[:2] == ["root:trec", sha256_of([root / "trec" / "test.parquet"])]
    assert from_hub[2:] == from_root[2:]
    assert len(from_hub[2]) == PLENTY["test"]
    assert from_hub[4] == NAMES
