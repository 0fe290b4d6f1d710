"""`generation`: does a language model write the right answer? Metric: exact match of one or of the best of several samples,
or pass@k.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Decoding, Session, Writes, Written
from compressbench.core.questions import SampleRow, Watch
from compressbench.core.spec import content_hash
from compressbench.data.documents import Documents
from compressbench.models.handle import ModelHandle
from compressbench.tasks.answer_filters import extracted, filtered, is_match
from compressbench.tasks.batching import longest_input, padded
from compressbench.tasks.pass_at_k import pass_at_k
from compressbench.tasks.prompting import Prompted, Row
from compressbench.tasks.selection import Sampled, Scored, Select, chosen, expected, score_texts, vote_of


class _Samples(NamedTuple):
    """A question's texts, the answers found in them, and which of these are right."""

    target: str
    answers: Sequence[str]
    is_right: Sequence[bool]
    written: Sequence[Written]


class Generation(Prompted):
    """A text is written after the prompt, its answer found by a filter, and compared with the right one.

    Version 1: greedy, or samples that depend on the seed and the prompt alone; a prompt that leaves no room for
    max_new_tokens loses its beginning; a text is cut at the first stop string. Prompts, filters and comparison are those
    of lm-evaluation-harness. With several samples the metric is pass@k for the first k of pass_k (arXiv:2107.03374), and
    the row of a problem has the first sample's answer. `also` says which part of its texts did not end by themselves.
    With `select` one answer is given: the commonest (majority), or the one whose text has the largest mean log-probability
    by the model itself (best-of-n); of equals the first, and what no filter finds has no vote. The metric is that answer's
    exact match, and `also` has pass@k and the selection's expected accuracy at fewer samples.
    Code that a model wrote is never run, so that what only its tests can judge (HumanEval) can't be asked here.
    """

    version: ClassVar[int] = 1
    direction: ClassVar[Literal["higher", "lower"]] = "higher"

    max_new_tokens: int = Field(256, ge=1, le=1_000_000)
    until: tuple[str, ...] = Field((), description="strings at which a text ends")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    num_samples: int = Field(1, ge=1, le=10_000, description="texts per prompt")
    pass_k: tuple[int, ...] = Field((1,), min_length=1, description="the first is the headline")
    select: Select = Field(
        "none", description="which of several samples is the answer: metric exact_match instead of pass@k"
    )
    filter: Literal["none", "first-line", "gsm8k-strict", "gsm8k-flexible"] = "none"
    regex: str | None = Field(None, description="a filter of your own: its first group, or the whole match")
    group_select: int = Field(0, description="which match of regex; -1 is the last")
    regexes_to_ignore: tuple[str, ...] = Field(
        (), description="taken out of answer and target before they are compared"
    )
    ignore_case: bool = False
    batch_tokens: int = Field(16_384, ge=1, description="tokens of a batch, prompts and texts together")

    @field_validator("regex", "regexes_to_ignore")
    @classmethod
    def _compiles(cls, given: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for pattern in [given] if isinstance(given, str) else given or ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return given

    @model_validator(mode="after")
    def _go_together(self) -> Generation:
        if self.regex is not None and self.filter != "none":
            raise ValueError("give either filter or regex")
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError("at temperature 0 all samples are the same: raise it, or leave num_samples at 1")
        if not all(1 <= k <= self.num_samples for k in self.pass_k):
            raise ValueError(f"pass_k must be from 1 to num_samples, which is {self.num_samples}")
        if self.select != "none" and self.num_samples == 1:
            raise ValueError(f"select: {self.select} needs several samples: raise num_samples")
        if "" in self.until:
            raise ValueError("an empty stop string would end every text at once")
        return self

    @property
    def metric(self) -> str:
        return "exact_match" if self.is_binary else f"pass@{self.pass_k[0]}"

    @property
    def is_binary(self) -> bool:  # type: ignore[override]
        return self.num_samples == 1 or self.select != "none"

    @property
    def protocol_id(self) -> str:
        answers = ("until", "filter", "regex", "group_select", "regexes_to_ignore", "ignore_case")
        written = ["max_new_tokens", "temperature", "batch_tokens"]
        written += ["top_p", "top_k", "seed", "num_samples"] if self.temperature else []
        written += ["select"] if self.select != "none" else []
        options = ",".join(f"{name}={getattr(self, name)}" for name in written)
        answer = content_hash({name: getattr(self, name) for name in answers})
        return f"generation/v{self.version}:{self.prompt_id},{options},answer={answer},metric={self.metric}"

    @property
    def decoding(self) -> Decoding:
        return Decoding(**{name: getattr(self, name) for name in Decoding.model_fields})

    def check_model(self, handle: ModelHandle, samples: Documents) -> None:
        super().check_model(handle, samples)
        if self._room(handle) < 1:
            raise ModelError(
                f"the model reads and writes at most {longest_input(handle, self.max_length)} tokens",
                where=handle.source.id,
                got=f"{self.max_new_tokens} tokens to write, which leaves none for the prompt",
                do="Lower the task's max_new_tokens.",
            )

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        work = super().estimated_work(training=training)
        if work is None or training:
            return work
        return work[0], work[1] + work[0] * self.num_samples * self.max_new_tokens

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Documents, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        """Texts differ in length between models, so that `watch` has nothing to compare."""
        if not isinstance(session, Writes):
            raise UnsupportedError("this runtime can't write texts", do="Use runtime: torch for this task.")
        encoded = handle.tokenizer([self.context(row) for row in samples.rows], verbose=False)["input_ids"]
        prompts = [tuple(ids[-self._room(handle) :]) for ids in encoded]
        written: dict[tuple[int, ...], list[Written]] = {}
        with progress.bar("evaluate", len(set(prompts))) as bar:
            for batch in self._batches(set(prompts)):
                texts = session.write(padded(batch, side="left"), self.decoding)
                starts = range(0, len(texts), self.num_samples)
                written |= {p: texts[at : at + self.num_samples] for p, at in zip(batch, starts, strict=True)}
                bar.advance(len(batch))
        scored = score_texts(session, written, self.batch_tokens) if self.select == "best-of-n" else {}
        return [
            self._row(id_, row, self._samples(handle, row, written[prompt]), (prompt, len(ids)), scored.get(prompt))
            for id_, row, prompt, ids in zip(samples.ids, samples.rows, prompts, encoded, strict=True)
        ]

    def _room(self, handle: ModelHandle) -> int:
        """Tokens that a prompt can have."""
        return longest_input(handle, self.max_length) - self.max_new_tokens

    def _batches(self, prompts: set[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """The longest prompts first, so that padding is little and memory peaks early."""
        waiting = sorted(prompts, key=lambda prompt: (-len(prompt), prompt))
        while waiting:
            count = max(1, self.batch_tokens // (self.num_samples * (len(waiting[0]) + self.max_new_tokens)))
            yield waiting[:count]
            waiting = waiting[count:]

    def _samples(self, handle: ModelHandle, row: Row, written: Sequence[Written]) -> _Samples:
        target = self.answer(row)
        answers = [self._found(handle.tokenizer.decode(each.tokens, skip_special_tokens=True)) for each in written]
        is_right = [is_match(answer, target, self.regexes_to_ignore, self.ignore_case) for answer in answers]
        return _Samples(target, answers, is_right, written)

    def _row(
        self, id_: str, row: Row, found: _Samples, prompt: tuple[tuple[int, ...], int], scored: Scored | None
    ) -> SampleRow:
        """`prompt` are the tokens that were read, and how many there would have been."""
        scores = {f"pass@{k}": pass_at_k(self.num_samples, sum(found.is_right), k) for k in self.pass_k}
        at, score = 0, scores[f"pass@{self.pass_k[0]}"]
        if self.select == "none":
            del scores[f"pass@{self.pass_k[0]}"]
        else:
            keys = [vote_of(each, self.regexes_to_ignore, self.ignore_case) for each in found.answers]
            sampled = Sampled(keys, found.is_right, scored.scores if scored else ())
            at = chosen(self.select, sampled)
            score = float(found.is_right[at])
            scores |= expected(self.select, sampled) | {"prompt_tokens": len(prompt[0])}
            scores |= {"scorer_tokens": scored.num_tokens} if scored else {}
        return SampleRow(
            id=id_,
            prediction=found.answers[at],
            target=found.target,
            score=score,
            also=scores | {"unfinished": sum(not each.has_ended for each in found.written) / len(found.written)},
            cluster=self.cluster_of(row),
            stratum=self.stratum_of(row),
            num_tokens=sum(len(each.tokens) for each in found.written),
            is_truncated=len(prompt[0]) < prompt[1],
        )

    def _found(self, text: str) -> str:
        for string in self.until:
            text = text.split(string)[0]
        if self.regex is not None:
            return extracted(self.regex, self.group_select, text)
        return filtered(self.filter, text)
