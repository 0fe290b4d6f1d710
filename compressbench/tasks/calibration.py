"""Drawing calibration samples, and refusing those that the model is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.errors import DataError, UnsupportedError
from compressbench.data.samples import load_samples
from compressbench.data.sources import TABLE_SUFFIXES, HubSource, check_source, locate
from compressbench.data.text import load_text
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import pad, require_positions
from compressbench.tasks.leakage import refuse_evaluation_data

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RUN = 64
"""So many tokens in a row that also stand in the evaluation data are an overlap; shorter samples overlap as a whole."""

DEFAULT_LENGTH = 128

Row = dict[str, Any]


def check_calibration(task: Any, calibration: Calibration) -> None:
    """Raise DataError if the samples aren't there, or are the evaluation's; reads no samples and uses no network."""
    if calibration.data is None:
        task.check(training=True)
        return
    check_source(calibration.data, calibration.split)
    if calibration.data == getattr(task, "data", None):
        refuse_evaluation_data(calibration.data, task.split, calibration.split)


def draw_calibration(task: Any, handle: ModelHandle, calibration: Calibration, seed: int) -> CalibrationSet:
    """Draw `num_samples` samples (all of them if there are fewer) with `calibration.seed`, or else `seed`.

    `task` is the recipe's first: where no data is named, its training split is used, and its evaluation split must not
    share a sample, or 64 tokens in a row, with what is drawn. Raises DataError if it does.
    """
    check_calibration(task, calibration)
    seed = seed if calibration.seed is None else calibration.seed
    if calibration.data is None:
        data, split = task.data, task.train_split
        rows, revision = task.model_inputs(handle, split)
    else:
        data, split = calibration.data, calibration.split
        rows, revision = _named_rows(handle, calibration)
    drawn = [
        _cut(rows[index], calibration.sequence_length) for index in _draw(len(rows), calibration.num_samples, seed)
    ]
    if not drawn:
        raise DataError("there are no samples to calibrate on", where=data, got=f"split '{split}'")
    require_positions(handle, max(len(row["input_ids"]) for row in drawn), "Lower calibration.sequence_length.")
    evaluated, _ = task.model_inputs(handle, task.split)
    _refuse_overlap(drawn, evaluated, data)
    num_tokens = sum(sum(row["attention_mask"]) for row in drawn)
    batches = _batches(drawn, handle, calibration.batch_size)
    return CalibrationSet(batches, data, split, revision, len(drawn), num_tokens, seed)


def _draw(available: int, wanted: int, seed: int) -> list[int]:
    import torch

    order = torch.randperm(available, generator=torch.Generator().manual_seed(seed))
    return [int(index) for index in order[:wanted]]


def _cut(row: Row, length: int | None) -> Row:
    return row if length is None else {name: values[:length] for name, values in row.items()}


def _named_rows(handle: ModelHandle, calibration: Calibration) -> tuple[list[Row], str]:
    """Rows of a table, cut at the sequence length; or windows of that length of a running text."""
    assert calibration.data is not None  # noqa: S101 -- the caller asks for named data only
    place = locate(calibration.data, calibration.split)
    length = calibration.sequence_length or DEFAULT_LENGTH
    options: dict[str, Any] = {
        "split": calibration.split, "revision": calibration.revision, "config": calibration.config,
    }  # fmt: skip
    if isinstance(place, HubSource) or place.suffix in TABLE_SUFFIXES:
        samples = load_samples(calibration.data, columns={"text": calibration.column}, **options)
        encoded = handle.tokenizer(list(samples.columns["text"]), truncation=True, max_length=length)
        return [{name: encoded[name][at] for name in encoded} for at in range(len(samples))], samples.revision
    text = load_text(calibration.data, **options)
    ids = handle.tokenizer(text.text, add_special_tokens=False, verbose=False)["input_ids"]
    starts = range(0, max(len(ids) - length, 0) + 1, length)
    windows = [ids[start : start + length] for start in starts]
    return [{"input_ids": window, "attention_mask": [1] * len(window)} for window in windows], text.revision


def _batches(rows: Sequence[Row], handle: ModelHandle, batch_size: int) -> list[dict[str, Any]]:
    """Rows of similar length together, so that padding is little."""
    import torch

    order = sorted(rows, key=lambda row: -len(row["input_ids"]))
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len({len(row["input_ids"]) for row in rows}) == 1:
        return [{name: torch.tensor([row[name] for row in part]) for name in part[0]} for part in parts]
    if handle.tokenizer.pad_token_id is None:
        raise UnsupportedError(
            "the tokenizer has no padding token, and the calibration samples differ in length",
            do="Set calibration.batch_size to 1, or name a running text.",
        )
    return [pad(part, handle.tokenizer) for part in parts]


def _refuse_overlap(drawn: Sequence[Row], evaluated: Sequence[Row], data: str) -> None:
    whole = {tuple(row["input_ids"]) for row in evaluated}
    double = next((at for at, row in enumerate(drawn) if tuple(row["input_ids"]) in whole), None)
    if double is None:
        import numpy as np

        known = np.concatenate([_hashes(row["input_ids"]) for row in evaluated] or [_hashes([])])
        double = next((at for at, row in enumerate(drawn) if np.isin(_hashes(row["input_ids"]), known).any()), None)
    if double is not None:
        raise DataError(
            "a calibration sample also stands in the evaluation data",
            where=data,
            got=f"tokens {drawn[double]['input_ids'][:8]}...",
            do="Calibrate on other data, or remove the doubles from one of the two.",
        )


def _hashes(ids: Sequence[int]) -> npt.NDArray[np.uint64]:
    """A hash of every RUN tokens in a row; none for fewer tokens."""
    import numpy as np

    if len(ids) < RUN:
        return np.empty(0, np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, RUN, dtype=np.uint64) | np.uint64(1)
    runs = np.lib.stride_tricks.sliding_window_view(np.asarray(ids, np.uint64), RUN)
    hashes: npt.NDArray[np.uint64] = runs @ factors
    return hashes
