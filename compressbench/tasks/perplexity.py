"""`perplexity`: how surprised is a language model by a text? Lower is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.errors import DataError, NotFiniteError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.documents import Documents, load_documents
from compressbench.data.sources import Form, HubSource, locate
from compressbench.data.text import Text, load_text
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import require_positions
from compressbench.tasks.declared import weighted_mean
from compressbench.tasks.from_data import FromData
from compressbench.tasks.leakage import refuse_evaluation_data
from compressbench.tasks.log_likelihood import token_scores
from compressbench.tasks.rolling_windows import evaluate_rolling, num_units, rolling_id
from compressbench.tasks.spread import num_workload_batches, shaped_batches

if TYPE_CHECKING:
    import torch

_NO_TARGET = -100


class Perplexity(FromData):
    """exp of the mean negative log-likelihood over windows of the tokenized text.

    Version 1: windows of `window` tokens start every `stride` tokens (default: no overlap), a window scores the tokens
    that no earlier window scored, its first token is context only, and the tail that fills no window is dropped: the
    protocol of the GPTQ paper (arXiv:2210.17323). `unit: word` divides the same sum by white-space words. A sample is
    a window: score is its nats per unit, weight its units, prediction and target count its top-1 hits and its tokens.
    Methods that quantize activations per batch see all windows of a batch, so batch_size is part of the protocol.

    `windows: rolling` is the `loglikelihood_rolling` of lm-evaluation-harness (arXiv:2405.14782): every token is scored,
    the first after the token that begins (or else ends) a text, the last window reaches back to be full, and special
    tokens are what the tokenizer adds. With `documents: each` every row of the table, or a whole text file, is a text and
    a sample of its own; one without tokens is none. Units are then its own bytes, or words as there, split at white space.
    """

    version: ClassVar[int] = 1
    metric: ClassVar[str] = "perplexity"
    direction: ClassVar[Literal["higher", "lower"]] = "lower"
    head: ClassVar[str] = "causal-lm"
    form: ClassVar[Form] = "text"
    is_log: ClassVar[bool] = True

    column: str = "text"
    join: str = "\n\n"
    documents: Literal["joined", "each"] = "joined"
    windows: Literal["full", "rolling"] = "full"
    window: int | None = Field(
        None, ge=2, le=1_000_000, description="tokens; default: 256, or with rolling windows what the model reads"
    )
    stride: int | None = Field(None, ge=1, description="default: window, so that windows do not overlap")
    unit: Literal["token", "word", "byte"] = "token"
    limit: int | None = Field(None, ge=1, description="evaluate only the first so many windows, or documents")
    batch_size: int = Field(8, ge=1, le=65536)
    token_budget: int = Field(4096, ge=1, description="of rolling windows, tokens read at once, at most")

    @model_validator(mode="after")
    def _stride_fits(self) -> Perplexity:
        if self.stride is not None and self.stride > self._width:
            raise ValueError(f"stride {self.stride} is larger than window {self._width}: tokens would be skipped")
        if self.windows == "rolling" and self.stride is not None:
            raise ValueError("rolling windows have no stride: each goes on where the last one ended")
        if self.windows == "full" and self.documents == "each":
            raise ValueError("documents: each needs windows: rolling; most are shorter than a full window")
        return self

    @property
    def _width(self) -> int:
        return self.window or 256

    @property
    def protocol_id(self) -> str:
        if self.windows == "rolling":
            return f"perplexity/v{self.version}:{rolling_id(self)}"
        stride = self.stride or self._width
        windows = f"window={self._width},stride={stride},batch_size={self.batch_size},join={self.join!r}"
        return f"perplexity/v{self.version}:{windows},unit={self.unit},tail=dropped,bos=none"

    def load(self) -> Text | Documents:
        return self._text(self.split) if self.documents == "joined" else self._documents(self.split)

    def check_model(self, handle: ModelHandle, samples: Text | Documents) -> None:
        if self.window is not None or self.windows == "full":
            require_positions(handle, self._width, "Lower the task's window.")

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Text | Documents, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        if self.windows == "rolling" or isinstance(samples, Documents):
            return evaluate_rolling(self, session, handle, samples, progress, watch)
        return self._evaluate_full(session, handle, samples, progress, watch)

    def _evaluate_full(
        self, session: Session, handle: ModelHandle, samples: Text, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        import torch

        tokens = _tokenize(handle, samples)
        starts = self._starts(len(tokens), samples.source)[: self.limit]
        units_per_token = num_units(samples.text, len(tokens), self.unit) / len(tokens)
        rows: list[SampleRow] = []
        with progress.bar("evaluate", len(starts)) as bar:
            for first in range(0, len(starts), self.batch_size):
                part = starts[first : first + self.batch_size]
                ids = torch.stack([tokens[start : start + self._width] for start in part])
                logits = session({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
                for start, window, scores in zip(part, ids, logits, strict=True):
                    rows.append(self._row(start, window, scores, units_per_token, watch))
                bar.advance(len(part))
        return rows

    def _row(
        self, start: int, window: torch.Tensor, logits: torch.Tensor, units_per_token: float, watch: Watch
    ) -> SampleRow:
        num_scored = self._width - 1 if start == 0 else min(self.stride or self._width, self._width - 1)
        scores = logits[-num_scored - 1 : -1]
        nats, greedy = token_scores(scores, window[-num_scored:])
        total = float(nats.sum())
        if not math.isfinite(total):
            raise NotFiniteError("the model gave logits that are not finite", do="Try bfloat16 or a milder setting.")
        watch.logits([str(start)], scores.unsqueeze(0))
        units = num_scored * units_per_token
        hits = str(int(greedy.sum()))
        return SampleRow(id=str(start), prediction=hits, target=str(num_scored), score=total / units, weight=units)

    def summarize(self, rows: Sequence[SampleRow]) -> float:
        return math.exp(min(weighted_mean(rows), 700.0))

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        if self.is_on_hub:
            return None
        if self.documents == "each" and not training:
            texts = [str(row.get(self.column, "")) for row in self._documents(self.split).rows[: self.limit]]
            return len(texts), sum(len(text) // 3 + 1 for text in texts)
        text = self._text(self.train_split if training else self.split)
        windows = max(1, len(text.text) // 3 // (self.stride or self._width))
        windows = min(windows, self.limit or windows)
        return windows, windows * self._width

    def training_batches(self, handle: ModelHandle, batch_size: int, max_samples: int | None, seed: int) -> list[Batch]:
        import torch

        refuse_evaluation_data(self.data, self.split, self.train_split)
        tokens = _tokenize(handle, self._text(self.train_split))
        starts = self._starts(len(tokens), self.data)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(starts), generator=generator).tolist()[:max_samples]
        windows = torch.stack([tokens[starts[index] : starts[index] + self._width] for index in order])
        return [
            {"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part}
            for part in torch.split(windows, batch_size)
        ]

    def model_inputs(self, handle: ModelHandle, split: str) -> tuple[list[dict[str, Any]], str]:
        text = self._text(split)
        tokens = _tokenize(handle, text)
        windows = [tokens[start : start + self._width].tolist() for start in self._starts(len(tokens), text.source)]
        return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in windows], text.revision

    def workload_batches(
        self, handle: ModelHandle, samples: Text | Documents, batch_size: int, sequence_length: int
    ) -> list[Batch]:
        tokens = _tokenize(handle, self._joined(samples))
        return shaped_batches(handle, tokens, (batch_size, sequence_length), "the text has", self.data)

    def workload_targets(
        self, handle: ModelHandle, samples: Text | Documents, batch_size: int, sequence_length: int
    ) -> list[list[int]]:
        """For forward passes over `workload_batches` the token of the text that follows each position, -100 where the
        text ends there. What a model generates freely has no right answer: a text goes on in more ways than one.
        """
        tokens = _tokenize(handle, self._joined(samples)).tolist()
        size = batch_size * sequence_length
        following = [*tokens[1:], _NO_TARGET]
        count = num_workload_batches(len(tokens) // sequence_length, batch_size)
        return [following[index * size : (index + 1) * size] for index in range(count)]

    def _documents(self, split: str) -> Documents:
        """Rows with a column of texts; a text file is one document."""
        place = locate(self.data, split, form="text")
        if not isinstance(place, HubSource) and place.suffix in {".txt", ".txt.gz"}:
            text = self._text(split)
            return Documents(text.source, text.split, text.revision, ("0",), [{self.column: text.text}])
        return load_documents(self.data, split=split, revision=self.revision, config=self.config, limit=self.limit)

    def _text(self, split: str) -> Text:
        return load_text(
            self.data, split=split, revision=self.revision, config=self.config, column=self.column, join=self.join
        )

    def _joined(self, samples: Text | Documents) -> Text:
        """For what only needs running text: shapes to be timed."""
        if isinstance(samples, Text):
            return samples
        texts = [str(row[self.column]) for row in samples.rows]
        return Text(samples.source, samples.split, samples.revision, self.join.join(texts))

    def _starts(self, num_tokens: int, source: str) -> list[int]:
        if num_tokens < self._width:
            raise DataError(
                f"the text has {num_tokens} tokens, fewer than one window of {self._width}",
                where=source,
                do="Lower window, or give more text.",
            )
        return list(range(0, num_tokens - self._width + 1, self.stride or self._width))


def _tokenize(handle: ModelHandle, text: Text) -> torch.Tensor:
    """All token ids of the text (int64), without special tokens and in one piece."""
    import torch

    return torch.tensor(handle.tokenizer(text.text, add_special_tokens=False, verbose=False)["input_ids"])
