"""`last-word`: does a language model know how a passage ends (LAMBADA)? Metrics: acc and perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from compressbench.core.progress import Progress
from compressbench.core.protocols import Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.documents import Documents
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import longest_input
from compressbench.tasks.log_likelihood import Batching, Likelihood, Pair, encode_pairs, likelihoods
from compressbench.tasks.prompting import Prompted, Row

RIGHT = "all tokens"


class LastWord(Prompted):
    """`acc`: every token of the target is the likeliest at its place. `perplexity`: exp of the targets' mean nats.

    Version 1: the `loglikelihood` of lm-evaluation-harness (arXiv:2405.14782), with the templates of its lambada_openai
    (arXiv:1606.06031) as defaults for a column `text`. The target brings its own space, so `target_delimiter` stands in
    few-shot examples only. Beside `acc` the rows have each target's log_likelihood (the mean of perplexities would be no
    perplexity), beside `perplexity` its acc.
    """

    version: ClassVar[int] = 1

    doc_to_text: str = "{{text.split(' ')[:-1]|join(' ')}}"
    doc_to_target: str = "{{' '+text.split(' ')[-1]}}"
    metric: Literal["acc", "perplexity"] = "acc"
    batch_size: int = Field(64, ge=1, le=65536, description="passages read at once, at most")
    token_budget: int = Field(4096, ge=1, description="tokens read at once, at most, where more than one passage is")

    @property
    def direction(self) -> Literal["higher", "lower"]:
        return "higher" if self.metric == "acc" else "lower"

    @property
    def is_binary(self) -> bool:  # type: ignore[override]
        return self.metric == "acc"

    @property
    def is_log(self) -> bool:  # type: ignore[override]
        return self.metric == "perplexity"

    @property
    def protocol_id(self) -> str:
        kind = f"{self.metric},batch_size={self.batch_size},token_budget={self.token_budget},prefix=shared"
        return f"last-word/v{self.version}:{kind},{self.prompt_id}"

    def whole_text(self, row: Row) -> str:
        return self.context(row) + self.answer(row)

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Documents, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        texts = [(self.context(row), self.answer(row)) for row in samples.rows]
        pairs = encode_pairs(handle, texts, longest_input(handle, self.max_length))
        with progress.bar("evaluate", len(pairs)) as bar:
            found = likelihoods(
                session,
                [[pair] for pair in pairs],
                Batching(self.batch_size, self.token_budget),
                bar.advance,
                lambda number, logits: watch.logits([samples.ids[number]], logits),
            )
        everything = zip(samples.ids, samples.rows, pairs, (likelihood for [likelihood] in found), strict=True)
        return [self._row(id_, row, pair, likelihood) for id_, row, pair, likelihood in everything]

    def _row(self, id_: str, row: Row, pair: Pair, found: Likelihood) -> SampleRow:
        is_right = float(found.num_greedy == len(pair.continuation))
        nats = -found.log_likelihood
        return SampleRow(
            id=id_,
            prediction=RIGHT if is_right else f"{found.num_greedy} of {len(pair.continuation)} tokens",
            target=RIGHT,
            score=is_right if self.metric == "acc" else nats,
            also={"acc": is_right, "log_likelihood": found.log_likelihood},
            cluster=self.cluster_of(row),
            stratum=self.stratum_of(row),
            confidence=min(1.0, math.exp(found.log_likelihood)) if is_right else None,
            is_truncated=pair.is_truncated,
        )

    def summarize(self, rows: Sequence[SampleRow]) -> float:
        mean = super().summarize(rows)
        return mean if self.metric == "acc" else math.exp(min(mean, 700.0))

    def reported(self, rows: Sequence[SampleRow]) -> dict[str, float]:
        """Both metrics, whichever is the headline."""
        accuracy, nats = (sum(row.also[name] for row in rows) / len(rows) for name in ("acc", "log_likelihood"))
        return {"acc": accuracy, "perplexity": math.exp(min(-nats, 700.0))}
