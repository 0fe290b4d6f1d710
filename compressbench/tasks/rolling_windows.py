"""Rolling windows over texts, in which every token is scored once: loglikelihood_rolling of lm-evaluation-harness."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from compressbench.core.errors import DataError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.documents import Documents
from compressbench.data.text import Text
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import longest_input
from compressbench.tasks.log_likelihood import (
    Batching,
    Likelihood,
    Pair,
    encode_texts,
    likelihoods,
    required_prefix_token,
)
from compressbench.tasks.templates import render

Unit = Literal["token", "word", "byte"]


class Options(Protocol):
    """The options of a perplexity that rolling windows look at."""

    @property
    def column(self) -> str: ...
    @property
    def join(self) -> str: ...
    @property
    def documents(self) -> Literal["joined", "each"]: ...
    @property
    def window(self) -> int | None: ...
    @property
    def unit(self) -> Unit: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def token_budget(self) -> int: ...


@dataclass(frozen=True)
class _Sample:
    """What gets a row: a document, or a window of the joined text. `units` are those of its scored tokens."""

    id: str
    windows: list[Pair]
    units: float


def rolling_id(task: Options) -> str:
    joined = f"join={task.join!r}" if task.documents == "joined" else "documents=each"
    batches = f"batch_size={task.batch_size},token_budget={task.token_budget}"
    return f"windows=rolling,window={task.window or 'model'},{batches},{joined},unit={task.unit},bos=prefix"


def num_units(text: str, num_tokens: int, unit: Unit) -> int:
    """Tokens, white-space words or UTF-8 bytes of a text."""
    return {"token": num_tokens, "word": len(text.split()), "byte": len(text.encode())}[unit]


def rolling_windows(tokens: Sequence[int], prefix: int, width: int) -> Iterator[Pair]:
    """Each window reads at most `width` tokens; the last one reaches back, and is scored on what is left."""
    end = min(width, len(tokens))
    yield Pair([prefix], list(tokens[:end]))
    while end < len(tokens):
        begin, end = end, min(end + width, len(tokens))
        yield Pair(list(tokens[end - width - 1 : begin]), list(tokens[begin:end]))


def evaluate_rolling(
    task: Options, session: Session, handle: ModelHandle, samples: Text | Documents, progress: Progress, watch: Watch
) -> list[SampleRow]:
    """A row for every sample that has tokens. A watch sees every window, the second of sample 7 as "7#1"."""
    made = list(_windows_of_text(task, handle, samples) if isinstance(samples, Text) else _texts(task, handle, samples))
    made = made[: task.limit]
    if not made:
        raise DataError("there is no token to score", where=samples.source, do="Give more text.")
    windows = [[window] for sample in made for window in sample.windows]
    names = [f"{sample.id}#{at}" if at else sample.id for sample in made for at in range(len(sample.windows))]

    def show(number: int, logits: Any) -> None:
        watch.logits([names[number]], logits)

    with progress.bar("evaluate", len(windows)) as bar:
        found = likelihoods(session, windows, Batching(task.batch_size, task.token_budget), bar.advance, show)
    scored = iter(found)
    return [_row(sample, [next(scored)[0] for _ in sample.windows]) for sample in made]


def _row(sample: _Sample, scored: Sequence[Likelihood]) -> SampleRow:
    return SampleRow(
        id=sample.id,
        prediction=str(sum(each.num_greedy for each in scored)),
        target=str(sum(len(window.continuation) for window in sample.windows)),
        score=-sum(each.log_likelihood for each in scored) / sample.units,
        weight=sample.units,
    )


def _texts(task: Options, handle: ModelHandle, samples: Documents) -> Iterator[_Sample]:
    texts = [render(task.column, row) if task.column in row else _no_column(task, row) for row in samples.rows]
    prefix, width = required_prefix_token(handle), longest_input(handle, task.window)
    encoded = encode_texts(handle, list(dict.fromkeys(text for text in texts if text)))
    for id_, text in zip(samples.ids, texts, strict=True):
        tokens = encoded.get(text, [])
        if tokens:
            words = len(re.split(r"\s+", text))  # as lm-evaluation-harness counts them: with empty ones at the ends
            units = words if task.unit == "word" else num_units(text, len(tokens), task.unit)
            yield _Sample(id_, list(rolling_windows(tokens, prefix, width)), units)


def _no_column(task: Options, row: dict[str, Any]) -> str:
    raise DataError(f"no column '{task.column}'", got=f"columns {', '.join(row)}", do="Name one of these.")


def _windows_of_text(task: Options, handle: ModelHandle, samples: Text) -> Iterator[_Sample]:
    """Windows of the joined text, each with its share of the units."""
    [tokens] = encode_texts(handle, [samples.text]).values()
    per_token = num_units(samples.text, len(tokens), task.unit) / len(tokens)
    begin = 0
    for window in rolling_windows(tokens, required_prefix_token(handle), longest_input(handle, task.window)):
        yield _Sample(str(begin), [window], len(window.continuation) * per_token)
        begin += len(window.continuation)
