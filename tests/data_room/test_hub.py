from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stand_in import HubStandIn

ATTEMPTS = """
from compressbench.core.errors import DataError
from compressbench.data.samples import load_samples
from compressbench.data.text import load_text

def attempt(source, split="test", columns={"text": "text", "label": "label"}, **options):
    try:
        samples = load_samples(source, split=split, columns=columns, **options)
    except DataError as error:
        return {"error": str(error)}
    return {"revision": samples.revision, "ids": samples.ids, "names": samples.label_names, **samples.columns}
"""

ONLINE = (
    ATTEMPTS
    + """
print(json.dumps({
    "branch": attempt("acme/rows"),
    "tag": attempt("acme/rows", revision="v1"),
    "commit": attempt("acme/rows", revision=given["old"]),
    "limit": attempt("acme/rows", limit=1),
    "text": load_text("acme/rows", split="test", join=" ").text,
    "csv": attempt("acme/comma", columns={"text": "text"}),
    "no repository": attempt("acme/nothing"),
    "no revision": attempt("acme/rows", revision="v2"),
    "no split": attempt("acme/rows", split="tests"),
    "no column": attempt("acme/rows", columns={"text": "texts"}),
    "no config": attempt("acme/rows", config="german"),
    "no data at that commit": attempt("acme/rows", revision="bare"),
    "damaged": attempt("acme/rows", revision="damaged"),
    "script": attempt("acme/script"),
    "not a table": attempt("acme/pages"),
}))
"""
)

OFFLINE = (
    ATTEMPTS
    + """
print(json.dumps({
    "branch": attempt("acme/rows"),
    "commit": attempt("acme/rows", revision=given["old"]),
    "no README": attempt("acme/comma", columns={"text": "text"}),
    "never loaded": attempt("acme/other"),
    "never loaded commit": attempt("acme/rows", revision=given["other"]),
}))
"""
)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
    }
    table = pa.Table.from_pylist(rows).replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}})}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


OLD = [{"text": "old one", "label": 1}, {"text": "old two", "label": 0}]
NEW = [{"text": "new one", "label": 0}, {"text": "new two", "label": 0}, {"text": "new three", "label": 1}]


@dataclass(frozen=True)
class Loaded:
    """What the child processes got, and the commits of the data set's two versions."""

    online: dict[str, Any]
    offline: dict[str, Any]
    asked_offline: list[str]
    old: str
    new: str


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    home = tmp_path_factory.mktemp("hub_home")
    shard = "data/test-00000-of-00001.parquet"
    with HubStandIn() as hub:
        old = hub.commit("dataset", "acme/rows", {"README.md": b"# Rows", shard: parquet(OLD)})
        new = hub.commit("dataset", "acme/rows", {"README.md": b"# Rows", shard: parquet(NEW)})
        hub.tag("dataset", "acme/rows", "v1", old)
        hub.commit("dataset", "acme/rows", {"README.md": b"# Rows"}, branch="bare")
        hub.commit("dataset", "acme/rows", {"README.md": b"# Rows", shard: b"PAR1 or not"}, branch="damaged")
        hub.commit("dataset", "acme/comma", {"test.csv": b"text\nHello\n"})
        hub.commit("dataset", "acme/script", {"script.py": b"raise SystemExit(3)"})
        hub.commit("dataset", "acme/pages", {"test.xml": b"<a><b>1</b></a>"})
        hub.commit("dataset", "acme/other", {shard: parquet(NEW)})
        online = hub.run_child(ONLINE, home=home, old=old)
        num_requests = len(hub.requests)
        offline = hub.run_child(OFFLINE, home=home, is_offline=True, old=old, other="0" * 40)
        yield Loaded(online, offline, hub.requests[num_requests:], old, new)


def columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {role: [row[role] for row in rows] for role in ("text", "label")}


def test_a_branch_gives_its_rows_its_label_names_and_the_commit_it_stood_for(loaded: Loaded) -> None:
    expected = {"revision": loaded.new, "ids": ["0", "1", "2"], "names": ["no", "yes"], **columns(NEW)}
    assert loaded.online["branch"] == expected


def test_a_tag_and_a_pinned_commit_give_the_older_rows(loaded: Loaded) -> None:
    expected = {"revision": loaded.old, "ids": ["0", "1"], "names": ["no", "yes"], **columns(OLD)}
    assert loaded.online["tag"] == loaded.online["commit"] == expected


def test_a_limit_takes_the_first_rows(loaded: Loaded) -> None:
    assert loaded.online["limit"]["text"] == ["new one"]


def test_a_column_is_joined_to_a_text(loaded: Loaded) -> None:
    assert loaded.online["text"] == "new one new two new three"


def test_offline_the_cached_commit_is_used_and_nothing_is_asked(loaded: Loaded) -> None:
    assert loaded.offline["branch"]["revision"] == loaded.new
    assert loaded.offline["branch"] == loaded.online["branch"]
    assert loaded.offline["no README"] == loaded.online["csv"]
    assert loaded.asked_offline == []


def test_offline_a_pinned_commit_is_not_replaced_by_a_later_one(loaded: Loaded) -> None:
    assert loaded.offline["commit"] == loaded.online["commit"]
    assert (
        f"acme/rows: can't be loaded from the Hub (got commit {'0' * 40}"
        in (loaded.offline["never loaded commit"]["error"])
    )


def test_offline_what_was_never_loaded_is_an_error(loaded: Loaded) -> None:
    assert loaded.offline["never loaded"] == {
        "error": "acme/other: the Hub can't be reached and this data set was not loaded before (got revision 'main'). "
        "Load it once with a connection."
    }


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        ("no repository", "acme/nothing: no such data set on the Hub (got 'acme/nothing'). Check the spelling"),
        ("no revision", "acme/rows: no such revision on the Hub (got 'v2'). Give a branch"),
        ("no split", "acme/rows: no such split (got 'tests'). Did you mean 'test'?"),
        ("no column", "acme/rows: no column 'texts' for the text (got columns text, label). Did you mean 'text'?"),
        ("no config", "acme/rows: can't be loaded from the Hub (got commit"),
        ("no data at that commit", "acme/rows: can't be loaded from the Hub (got commit"),
        ("damaged", "acme/rows: can't be loaded from the Hub (got commit"),
        ("script", "acme/script: can't be loaded from the Hub (got commit"),
        ("not a table", "acme/pages: only plain tables are read from the Hub (got xml files)"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_says_why(loaded: Loaded, attempt: str, text: str) -> None:
    assert loaded.online[attempt].get("error", "no error").startswith(text)
