"""Samples lost and won: the same as a loop over both models' rows finds, and a reason where rows are missing or changed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.core.questions import SampleRow
from compressbench.measure.paired_rows import aligned, differences, sums
from compressbench.records.record import Record
from compressbench.records.store import RecordStore, read_record, stem_of
from compressbench.report.flips import Columns, Flip, compared, flips, flips_of

Made = tuple[Path, Record]


def rows(scores: Sequence[float], said: str, **changed: Any) -> list[SampleRow]:
    return [
        SampleRow(id=str(at), prediction=f"{said} {at}", target=f"right {at}", score=score, **changed)
        for at, score in enumerate(scores)
    ]


def written(
    folder: Path, before: Sequence[SampleRow], after: Sequence[SampleRow], *, direction: str = "higher"
) -> Made:
    """The record of a candidate, with its baseline and both files of rows beside it."""
    store = RecordStore(folder)
    paired = sums(differences(aligned(before, after)), direction)
    found: list[Made] = []
    for name, own in (("baseline", before), ("int8", after)):
        file, sha256 = store.write_samples(stem_of("example", name, build.RUN_ID), "text-classification", own)
        score = build.accuracy(
            samples_file=file, samples_sha256=sha256, direction=direction, is_binary=direction == "higher",
            num_samples=len(own), paired=None if name == "baseline" else paired,
        )  # fmt: skip
        path = store.append(build.record(name, scores=(score,)))
        found.append((path, read_record(path)))
    return found[1]


def by_hand(before: Sequence[SampleRow], after: Sequence[SampleRow], sign: int) -> tuple[list[str], list[str]]:
    """Ids of what was lost and won, the largest change first."""
    pairs = [(sign * (new.score - old.score), old.id) for old in before for new in after if new.id == old.id]
    lost = sorted((pair for pair in pairs if pair[0] < 0), key=lambda pair: pair[0])
    won = sorted((pair for pair in pairs if pair[0] > 0), key=lambda pair: -pair[0])
    return [name for _, name in lost], [name for _, name in won]


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_flips_are_those_of_a_loop_over_all_pairs(direction: str, tmp_path: Path) -> None:
    source = random.Random(3)
    drawn = [[source.random() for _ in range(300)] for _ in range(2)]
    if direction == "higher":
        drawn = [[float(value < 0.7) for value in each] for each in drawn]
    before, after = rows(drawn[0], "old"), rows(drawn[1], "new", num_tokens=7)
    source.shuffle(after)
    path, record = written(tmp_path, before, after, direction=direction)
    found = flips_of(path, record, 0)
    lost, won = by_hand(before, after, 1 if direction == "higher" else -1)
    assert [flip.id for flip in found.lost] == lost
    assert [flip.id for flip in found.won] == won
    paired = record.scores[0].paired
    assert paired is not None
    assert (len(lost), len(won)) == (paired.num_harmful, paired.num_beneficial)
    first = found.lost[0]
    old, new = (next(row for row in each if row.id == first.id) for each in (before, after))
    texts = (old.id, old.target, old.prediction, new.prediction)
    assert first == Flip(*texts, old.score, new.score, None, 7)


def test_a_page_shows_thirty_and_ten_and_counts_all(tmp_path: Path) -> None:
    before = rows([1.0] * 50 + [0.0] * 25 + [1.0] * 5, "old")
    after = rows([0.0] * 50 + [1.0] * 25 + [1.0] * 5, "new")
    found = flips(*written(tmp_path, before, after))[0]
    assert (len(found["lost"]), len(found["won"])) == (30, 10)
    assert (found["num_lost"], found["num_won"], found["num_samples"]) == (50, 25, 80)
    assert found["lost"][0] == ["0", "right 0", "old 0", "new 0", 1.0, 0.0, None, None]


def test_long_texts_are_cut_to_two_hundred_signs_and_odd_ones_stay_text(tmp_path: Path) -> None:
    texts = ["x" * 201, "y" * 200, "<img src=x onerror=alert(1)>\n\t\u202e"]
    before = [SampleRow(id=str(at), prediction=text, target="t", score=1.0) for at, text in enumerate(texts)]
    after = [row.model_copy(update={"prediction": "", "score": 0.0}) for row in before]
    found = flips(*written(tmp_path, before, after))[0]["lost"]
    assert [each[2] for each in found] == ["x" * 199 + "…", "y" * 200, texts[2]]


def test_a_sample_that_one_model_was_not_asked_is_no_flip() -> None:
    before: Columns = {"id": ["a", "b"], "target": ["", ""], "prediction": ["", ""], "score": [1.0, 1.0]}
    after: Columns = {"id": ["b", "c"], "target": ["", ""], "prediction": ["", ""], "score": [0.0, 0.0]}
    assert [flip.id for flip in compared(before, after, "higher").lost] == ["b"]


def test_a_baseline_has_no_flips(tmp_path: Path) -> None:
    written(tmp_path, rows([1.0, 0.0], "old"), rows([0.0, 0.0], "new"))
    path = next(tmp_path.glob("*.baseline.*.json"))
    assert flips(path, read_record(path)) == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("own samples gone", "the samples are not beside the record (no file example.int8."),
        ("own samples changed", "the per-sample rows can't be read (its checksum doesn't match)"),
        ("baseline gone", "the baseline of this run is not beside the record"),
        ("baseline changed", "the file was changed after it was written"),
        ("its samples gone", "the per-sample rows can't be read (No such file"),
        ("its samples changed", "the per-sample rows can't be read (its checksum doesn't match)"),
    ],
)
def test_rows_that_are_missing_or_changed_are_absent_with_the_reason(broken: str, reason: str, tmp_path: Path) -> None:
    path, record = written(tmp_path, rows([1.0, 0.0], "old"), rows([0.0, 0.0], "new"))
    whose = "int8" if broken.startswith("own") else "baseline"
    kind = "parquet" if "samples" in broken else "json"
    file = next(tmp_path.glob(f"*.{whose}.*.{kind}"))
    if broken.endswith("gone"):
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().replace(b"1", b"2"))
    found = flips(path, record)[0]
    assert reason in found["reason"]
    assert str(tmp_path) not in found["reason"], "a page tells no folders"
    assert (found["num_lost"], found["num_won"]) == (1, 0), "the counts are the record's own"
    assert "lost" not in found


def test_a_file_of_other_columns_is_a_reason_too(tmp_path: Path) -> None:
    path, record = written(tmp_path, rows([1.0], "old"), rows([0.0], "new"))
    file, sha256 = RecordStore(tmp_path).write_columns("other", "rows", {"id": ["0"], "score": [None]})
    score = record.scores[0].model_copy(update={"samples_file": file, "samples_sha256": sha256})
    found = flips(path, record.model_copy(update={"scores": (score,)}))[0]
    assert found["reason"] == "the per-sample rows can't be compared: TypeError"


def test_another_question_than_the_baselines_is_not_compared(tmp_path: Path) -> None:
    path, record = written(tmp_path, rows([1.0], "old"), rows([0.0], "new"))
    score = record.scores[0].model_copy(update={"protocol_id": "text-classification/v1:other"})
    found = flips(path, record.model_copy(update={"scores": (score,)}))[0]
    assert "not asked the same question" in found["reason"]
