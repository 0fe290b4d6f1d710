"""Forges records: folders of an honest baseline, an honest candidate and one hostile file.

Its checksum is right where it can be, because a forger can compute it, and its candidate would be the best of all if it
were believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import record_builder as build

from compressbench.records.store import dump

Fields = dict[str, Any]
BLANK = "0" * 64
HOSTILE_FILE = f"hostile.{build.RUN_ID}.json"
HONEST_FILE = f"example.int8.{build.RUN_ID}.json"
# everything at once: a tag, an escape sequence, a turn of direction, a cell, code, a link, a template
NASTY = "<img src=x onerror=alert(1)>\x1b[31m\u202e|`=1+1`[x](javascript:alert(1)){{7*7}}${x}\\input{/etc/passwd}"
# the same from somebody who knows that signs which can't be printed are noticed
POLITE = "<img src=x onerror=alert(1)>|`=1+1`[x](javascript:alert(1)){{7*7}}\\input{/etc/passwd}"


class Case(NamedTuple):
    """`write` puts the hostile file into a folder. `said` is in the reason why it isn't ranked or read; "" if the record is
    an honest one with hostile text where people write what they like, so that it may be ranked; None if it is no file.
    """

    write: Callable[[Path], None]
    said: str | None = " "


@cache
def _honest() -> Mapping[str, bytes]:
    run = build.run_of(
        {
            "int8": build.record(
                "int8",
                scores=(build.accuracy_after(4, 6),),
                measurement=build.interleaved(
                    build.noisy(0.010), build.noisy(0.006, seed=2), build.noisy(0.010, seed=3)
                ),
            )
        },
        measurement=build.interleaved(build.noisy(0.010), build.noisy(0.010, seed=2), build.noisy(0.010, seed=3)),
    )
    return {record.candidate: dump(record) for record in run}


@cache
def best() -> bytes:
    """The record that is made hostile: of the same run, and better than everything."""
    better = build.interleaved(build.noisy(0.010), build.noisy(0.001, seed=4), build.noisy(0.010, seed=3))
    found = build.record(
        "best", scores=(build.accuracy_after(0, 200),), measurement=better,
        readings=build.readings(disk_bytes=1e6, peak_memory_bytes=2e6, weights_memory_bytes=1e6),
    )  # fmt: skip
    return dump(found.model_copy(update={"recipe": build.recipe(("int8",))}))


def honest_key() -> str:
    """The comparability key of the honest rows."""
    from compressbench.records.comparability import comparability_key, conditions_of
    from compressbench.records.store import load

    return comparability_key(conditions_of(load(_honest()["int8"], "")))


def sealed(fields: Mapping[str, Any], raw: Mapping[str, str] | None = None) -> bytes:
    """As the store writes it, with the checksum that belongs to it; `raw` replaces text after it became JSON."""
    lines = (f"{json.dumps(key)}:{json.dumps(value)}" for key, value in {**fields, "sha256": BLANK}.items())
    text = "{" + ",\n".join(lines) + "}\n"
    for old, new in (raw or {}).items():
        assert old in text
        text = text.replace(old, new, 1)
    data = text.encode()
    return data.replace(BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def write_honest(folder: Path) -> None:
    for name, data in _honest().items():
        (folder / f"example.{name}.{build.RUN_ID}.json").write_bytes(data)


def forged(change: Callable[[Fields], object], said: str = " ", raw: Mapping[str, str] | None = None) -> Case:
    """The best record with some of its fields changed."""

    def write(folder: Path) -> None:
        fields = json.loads(best())
        # many cases in one folder need names of their own
        fields["candidate"] = folder.name if folder.name.startswith("case-") else "best"
        change(fields)
        (folder / HOSTILE_FILE).write_bytes(sealed(fields, raw))

    return Case(write, said)


def a_file(data: bytes, said: str = " ") -> Case:
    def write(folder: Path) -> None:
        (folder / HOSTILE_FILE).write_bytes(data)

    return Case(write, said)


def put(place: str, value: object, said: str = " ", raw: Mapping[str, str] | None = None) -> Case:
    """The best record with `value` at a place such as `scores.0.metric`."""
    return forged(lambda fields: set_at(fields, place, value), said, raw)


def set_at(fields: Any, place: str, value: object) -> Any:
    """`fields` with `value` at a place such as `scores.0.metric`."""
    *path, last = place.split(".")
    inner = fields
    for step in path:
        inner = inner[int(step) if step.isdigit() else step]
    inner[int(last) if last.isdigit() else last] = value
    return fields


def reading(name: str, value: object, **more: object) -> Case:
    """One of the best record's readings replaced, or another added."""

    def change(fields: Fields) -> None:
        old = [each for each in fields["readings"] if each["name"] != name]
        new = {"name": name, "value": value, "kind": "measured", "source": "s", "uncertainty_reason": "none"}
        fields["readings"] = [*old, {**new, **more}]

    return forged(change, name)


def of_blocks(change: Callable[[Fields], object], said: str = " ") -> Case:
    """Every block of the candidate changed."""
    return forged(lambda fields: [change(b) for b in fields["measurement"]["blocks"] if b["arm"] == "candidate"], said)


def drop_energy(fields: Fields) -> Fields:
    for block in fields["measurement"]["blocks"]:
        block |= {"raw": {}, "uncertainties": {}}
    fields["measurement"]["provenance"] = {}
    return fields


def link_to_itself(folder: Path) -> None:
    (folder / HOSTILE_FILE).symlink_to(folder / HOSTILE_FILE)


def link_to_nowhere(folder: Path) -> None:
    (folder / HOSTILE_FILE).symlink_to(folder / "nowhere")


def folder_like_a_record(folder: Path) -> None:
    (folder / HOSTILE_FILE).mkdir()
    (folder / HOSTILE_FILE / "loop").symlink_to(folder)


def best_changed(old: bytes, new: bytes) -> bytes:
    assert old in best()
    return best().replace(old, new, 1)


def add_perplexity(fields: Fields, **changed: object) -> Fields:
    """Another score, as far from the baseline's as its paired numbers say."""
    paired = {
        "num_samples": 100,
        "num_harmful": 0,
        "num_beneficial": 100,
        "mean_difference": -0.1,
        "sd_difference": 0.1,
    }
    score = build.perplexity(18.0, scale="log").model_dump(mode="json")
    fields["scores"].append({**score, "paired": {**paired, **changed}})
    return fields


def of_pair(**changed: object) -> Case:
    return forged(lambda fields: fields["scores"][0]["paired"].update(changed), "text-classification")
