"""`lm-eval`: any task of lm-evaluation-harness (arXiv:2405.14782) on the compressed model in memory, by its own name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.errors import (
    CellError,
    CompressbenchError,
    DataError,
    ModelError,
    UnsupportedError,
)
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.models.handle import ModelHandle
from compressbench.tasks.declared import Declared
from compressbench.tasks.lm_eval_load import HarnessTask, load_task
from compressbench.tasks.lm_eval_quiet import (
    FEWSHOT_SEED,
    as_seeded_by_the_harness,
    quiet_harness,
)
from compressbench.tasks.lm_eval_rows import LOG_MEANS, Logged, document_id, log_likelihoods, reported, rows_of, summary
from compressbench.tasks.lm_eval_run import ask_the_harness
from compressbench.tasks.lm_eval_tasks import Definition, Metric, find_definition
from compressbench.tasks.spread import shaped_batches

_BINARY = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})


class LmEval(Declared):
    """The harness asks, scores and aggregates; its metrics keep their names, such as `acc_norm,none`.

    Version 1: as lm_eval.simple_evaluate with its default seeds and without a chat template. A row is a document, and
    `reported(rows)` gives the harness's values and standard errors of all metrics. What the harness reports must follow
    from the rows, or else there is no number. Groups are refused: a score belongs to one task.
    """

    version: ClassVar[int] = 1
    head: ClassVar[str] = "causal-lm"

    task: str = Field(description="its name in lm-evaluation-harness, such as arc_easy")
    include_path: str | None = Field(None, description="a folder with YAML files of more tasks, which come first")
    num_fewshot: int | None = Field(None, ge=0, le=1000, description="default: the task's own")
    limit: int | None = Field(None, ge=1, description="evaluate only the first so many documents")
    batch_size: int = Field(8, ge=1, le=65536)
    metric: str = Field("", description="the headline, such as acc_norm,none; default: the task's first")

    @model_validator(mode="before")
    @classmethod
    def _first_metric(cls, given: Any) -> Any:
        """A record shall say which metric it was. What keeps it from being found here is told by `check`."""
        if isinstance(given, dict) and not given.get("metric") and isinstance(given.get("task"), str):
            with suppress(CompressbenchError):
                found = find_definition(given["task"], given.get("include_path")).metrics
                return {**given, "metric": next(iter(found), "")}
        return given

    @cached_property
    def _definition(self) -> Definition:
        return find_definition(self.task, self.include_path)

    @property
    def _headline(self) -> Metric:
        return self._definition.metric(self.metric)

    @property
    def direction(self) -> Literal["higher", "lower"]:
        return "higher" if self._headline.is_higher_better else "lower"

    @property
    def is_binary(self) -> bool:  # type: ignore[override]
        """Not so if the task's own code scores: truthfulqa_mc2 calls a probability acc."""
        is_mean = self._headline.aggregation == "mean"
        return is_mean and self._headline.name in _BINARY and not self._definition.is_open

    @property
    def is_log(self) -> bool:  # type: ignore[override]
        return self._headline.aggregation in LOG_MEANS

    @property
    def split(self) -> str:
        return self._definition.split

    @property
    def protocol_id(self) -> str:
        fewshot = "its-own" if self.num_fewshot is None else self.num_fewshot
        defined = f"{self.task}@{self._definition.version or '?'}-{self._definition.sha256[:8]}"
        options = f"num_fewshot={fewshot},batch_size={self.batch_size},metric={self.metric}"
        return f"lm-eval/v{self.version}:{defined},{options},harness={version('lm_eval')}"

    def check(self, *, training: bool = False) -> None:
        """Raise MissingDependencyError without the harness, UnknownNameError for a task or metric that it doesn't have."""
        if not self.metric and not self._definition.metrics:
            raise DataError(
                f"the metrics of '{self.task}' are known to its code alone", do="Name one, such as metric: exact,none."
            )
        self._definition.metric(self.metric)
        if training:
            raise _only_for_evaluation()

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        return None

    def load(self) -> HarnessTask:
        return load_task(self._definition, self.num_fewshot, self.limit)

    def check_model(self, handle: ModelHandle, samples: HarnessTask) -> None:
        if handle.tokenizer.bos_token_id is None and handle.tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has neither a token for the beginning nor one for the end of a text",
                where=handle.source.id,
                do="lm-evaluation-harness needs one of them.",
            )

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: HarnessTask, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        """`watch` sees the log-likelihoods of the choices of a multiple choice."""
        if getattr(session, "module", None) is not handle.model:
            raise UnsupportedError(
                "lm-evaluation-harness asks models in PyTorch", do="Use runtime: torch for this task."
            )
        with progress.bar("evaluate", len(samples)) as bar:
            said = ask_the_harness(
                handle, samples.task, self.limit, self.batch_size, lambda part: bar.advance(part * len(samples))
            )
        rows = rows_of(self._definition, self._headline, samples.task, said.logged)
        self._require_same(rows, said.values)
        _show(watch, said.logged, samples.task, {row.id for row in rows})
        return [row.model_copy(update={"is_truncated": row.id in said.cut}) for row in rows]

    def _require_same(self, rows: Sequence[SampleRow], values: Mapping[str, Any]) -> None:
        theirs, ours = float(values[self.metric]), self.summarize(rows)
        if not math.isclose(theirs, ours, rel_tol=1e-9, abs_tol=1e-12):
            raise CellError(
                f"the harness's {self.metric} doesn't follow from its samples", got=f"{theirs} and {ours}",
                do="Choose another metric of the task.",
            )  # fmt: skip

    def summarize(self, rows: Sequence[SampleRow]) -> float:
        return summary(self._definition, self._headline, rows)

    def reported(self, rows: Sequence[SampleRow]) -> dict[str, float | int | str]:
        """What the harness reports of these rows, under its names: values, standard errors, version, n-shot."""
        values = reported(self._definition, self._headline, rows)
        shots = self.num_fewshot if self.num_fewshot is not None else self._definition.config.get("num_fewshot") or 0
        alias = str(self._definition.config.get("task_alias") or self.task)
        return {"alias": alias, "version": self._definition.version, "n-shot": shots, **values}

    def training_batches(self, handle: ModelHandle, batch_size: int, max_samples: int | None, seed: int) -> list[Batch]:
        raise _only_for_evaluation()

    def model_inputs(self, handle: ModelHandle, split: str) -> tuple[list[dict[str, Any]], str]:
        """The tokens of every request of the evaluation, so that calibration samples can be kept apart from it."""
        if split != self.split:
            raise _only_for_evaluation()
        samples = self.load()
        rows = self._encoded(handle, samples)
        return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows], samples.revision

    def workload_batches(
        self, handle: ModelHandle, samples: HarnessTask, batch_size: int, sequence_length: int
    ) -> list[Batch]:
        """The requests one after the other, cut into the exact shape."""
        import torch

        ids = torch.tensor([token for row in self._encoded(handle, samples) for token in row])
        return shaped_batches(handle, ids, (batch_size, sequence_length), "the requests have", samples.source)

    def _encoded(self, handle: ModelHandle, samples: HarnessTask) -> list[list[int]]:
        with quiet_harness(), as_seeded_by_the_harness():
            samples.task.set_fewshot_seed(seed=FEWSHOT_SEED)
            samples.task.build_all_requests(limit=self.limit)
        texts = ["".join(part for part in request.args if isinstance(part, str)) for request in samples.task.instances]
        rows: list[list[int]] = handle.tokenizer(texts, verbose=False)["input_ids"]
        return rows


def _show(watch: Watch, logged: Sequence[Logged], task: Any, ids: set[str]) -> None:
    import torch

    for sample in logged:
        id_, found = document_id(sample), log_likelihoods(sample, task)
        if found is not None and id_ in ids:
            ids.discard(id_)  # another filter logs the same document again
            watch.logits([id_], torch.tensor([found], dtype=torch.float64))


def _only_for_evaluation() -> DataError:
    return DataError(
        "tasks of lm-evaluation-harness are for evaluation, and never trained or calibrated on",
        where="lm-eval",
        do="Name other data, such as calibration: {data: ...}, or put a task with training data first.",
    )
