"""Logged samples of lm-evaluation-harness into rows, and rows back into the harness's metrics and standard errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from compressbench.core.errors import NotFiniteError, UnsupportedError
from compressbench.core.questions import SampleRow
from compressbench.tasks.declared import weighted_mean
from compressbench.tasks.lm_eval_tasks import Definition, Metric, aggregate

MEANS = frozenset({"mean", "nanmean", "brier_score"})
LOG_MEANS = frozenset({"perplexity", "weighted_perplexity"})
_WEIGHTED = frozenset({"weighted_perplexity", "bits_per_byte"})
_LONGEST_TEXT = 2000
_PART = "logged"
"""The key under which a row's target and prediction have the two parts of a pair."""

Logged = Mapping[str, Any]


class _Item(NamedTuple):
    """A sample under one metric: score and weight, and the pair that it is where no number says it all."""

    score: float
    weight: float = 1.0
    pair: tuple[Any, Any] | None = None


def rows_of(definition: Definition, headline: Metric, task: Any, logged: Sequence[Logged]) -> list[SampleRow]:
    """A row for every document that the headline counts, in the harness's order.

    The id is doc_id:doc_hash, so that other data can't be paired. `also` has the item's value under every other metric
    that gives it a number; under those that only a corpus has (f1, bleu) there is none. Raises NotFiniteError for a score
    that is no number, UnsupportedError if the harness didn't log the headline.
    """
    by_document: dict[int, list[Logged]] = {}
    for sample in logged:
        by_document.setdefault(sample["doc_id"], []).append(sample)
    rows = []
    for samples in by_document.values():
        for sample in samples:
            if sample["filter"] != headline.filter or headline.name not in sample["metrics"]:
                continue
            item = _item(headline, sample[headline.name])
            if not math.isfinite(item.score) and headline.aggregation != "nanmean":
                raise NotFiniteError(f"a sample has no finite {headline.key}", where=f"doc_id {sample['doc_id']}")
            if math.isfinite(item.score) and item.weight > 0:
                rows.append(_row(definition, headline, task, samples, sample, item))
    if not rows:
        found = {f"{name},{sample['filter']}" for sample in logged for name in sample["metrics"]}
        raise UnsupportedError(
            f"the harness logged no '{headline.key}' for this task", do=f"It has {', '.join(sorted(found))}."
        )
    return rows


def document_id(sample: Logged) -> str:
    return f"{sample['doc_id']}:{sample['doc_hash']}"


def _row(
    definition: Definition, headline: Metric, task: Any, samples: Sequence[Logged], sample: Logged, item: _Item
) -> SampleRow:
    prediction, target, confidence = _answer(headline, task, sample)
    if item.pair is not None:
        target, prediction = (json.dumps({_PART: part}, default=str) for part in item.pair)
    also: dict[str, float] = {}
    for each in samples:
        for name in each["metrics"]:
            key = f"{name},{each['filter']}"
            metric = definition.metrics.get(key) or Metric(name, each["filter"], "mean", True)
            if key != headline.key and (number := _number(metric, each[name])) is not None:
                also[key] = number
    return SampleRow(
        id=document_id(sample),
        prediction=prediction,
        target=target,
        score=item.score,
        weight=item.weight,
        also=also,
        confidence=confidence,
    )


def _number(metric: Metric, value: Any) -> float | None:
    try:
        item = _item(metric, value)
    except UnsupportedError:
        return None
    return item.score if item.pair is None and math.isfinite(item.score) else None


def _item(metric: Metric, value: Any) -> _Item:
    """Raises UnsupportedError for a value that neither is a number nor a pair."""
    try:
        if metric.aggregation in _WEIGHTED:
            log_likelihood, count = (float(part) for part in value)
            unit = math.log(2) if metric.aggregation == "bits_per_byte" else 1.0
            return _Item(-log_likelihood / count / unit, count) if count else _Item(0.0, 0.0)
        if metric.aggregation == "perplexity":
            return _Item(-float(value))
        if metric.aggregation == "brier_score":
            gold, probabilities = value
            return _Item(sum((float(p) - (at == gold)) ** 2 for at, p in enumerate(probabilities)))
        if not isinstance(value, tuple | list):
            return _Item(float(value))
        first, second = (_plain(part) for part in value)
        return _Item(float(first == second), 1.0, (first, second))
    except (TypeError, ValueError) as error:
        raise UnsupportedError(
            f"the harness's '{metric.key}' has values that can't be kept", got=repr(value)
        ) from error


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def log_likelihoods(sample: Logged, task: Any) -> list[float] | None:
    """Those of the choices of a multiple choice; None for anything else."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    count = len(task.doc_to_choice(sample["doc"]))
    return [float(response[0]) for response in sample["filtered_resps"][:count]]


def _answer(headline: Metric, task: Any, sample: Logged) -> tuple[str, str, float | None]:
    """Prediction, target, and the probability of the prediction: numbers of choices, or what the harness logged."""
    found = log_likelihoods(sample, task)
    if found is None:
        logged = sample["filtered_resps"]
        said = logged[0] if len(logged) == 1 else logged
        return str(said)[:_LONGEST_TEXT], str(sample["target"])[:_LONGEST_TEXT], None
    choices = task.doc_to_choice(sample["doc"])
    sizes = {"acc_norm": [len(choice) for choice in choices], "acc_bytes": [len(choice.encode()) for choice in choices]}
    per = [one / size for one, size in zip(found, sizes.get(headline.name, [1] * len(found)), strict=True)]
    chosen = per.index(max(per))
    largest = max(found)
    share = math.exp(found[chosen] - largest) / math.fsum(math.exp(each - largest) for each in found)
    return str(chosen), _gold(task, sample, choices), share if headline.name == "acc" else None


def _gold(task: Any, sample: Logged, choices: Sequence[str]) -> str:
    """The number of the right choice, from where the harness takes it."""
    gold = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    return str(choices.index(gold)) if isinstance(gold, str) and gold in choices else str(gold)


def summary(definition: Definition, headline: Metric, rows: Sequence[SampleRow]) -> float:
    """The harness's aggregated value of these rows."""
    if headline.aggregation in MEANS | {"bits_per_byte"}:
        return weighted_mean(rows)
    if headline.aggregation in LOG_MEANS:
        return math.exp(min(weighted_mean(rows), 700.0))
    return aggregate(definition, headline, [_logged_value(row) for row in rows])


def _logged_value(row: SampleRow) -> Any:
    """The number that was logged, or the pair."""
    start = f'{{"{_PART}": '
    if row.target.startswith(start) and row.prediction.startswith(start):
        return json.loads(row.target)[_PART], json.loads(row.prediction)[_PART]
    return row.score


def reported(definition: Definition, headline: Metric, rows: Sequence[SampleRow]) -> dict[str, float]:
    """Values and standard errors under the harness's names, of every metric that is a mean of what the rows have.

    Standard errors are the harness's closed form for means; those that it finds by a bootstrap are left out, and so is
    the value of another metric if not all rows have it.
    """
    values = {headline.key: summary(definition, headline, rows)}
    items = {headline.key: [row.score for row in rows]} if headline.aggregation == "mean" else {}
    for key in rows[0].also:
        metric = definition.metrics.get(key)
        scores = [row.also[key] for row in rows if key in row.also]
        if len(scores) < len(rows) or (metric is not None and metric.aggregation not in MEANS | LOG_MEANS | _WEIGHTED):
            continue
        kind = "mean" if metric is None else metric.aggregation
        value = _other(kind, headline, rows, scores)
        if value is not None:
            values[key] = value
        if kind == "mean":
            items[key] = scores
    return values | {_stderr(key): _standard_error(scores) for key, scores in items.items() if len(scores) > 1}


def _other(kind: str, headline: Metric, rows: Sequence[SampleRow], scores: Sequence[float]) -> float | None:
    """All weighted metrics of an item share its log-likelihood, from which the weight under another one follows."""
    if kind not in _WEIGHTED:
        mean = math.fsum(scores) / len(scores)
        return math.exp(min(mean, 700.0)) if kind in LOG_MEANS else mean
    if headline.aggregation not in _WEIGHTED or not all(scores):
        return None
    nats = math.log(2) if headline.aggregation == "bits_per_byte" else 1.0
    sums = [row.score * row.weight * nats for row in rows]
    unit = math.log(2) if kind == "bits_per_byte" else 1.0
    mean = math.fsum(sums) / math.fsum(total / score / unit for total, score in zip(sums, scores, strict=True))
    return math.exp(min(mean, 700.0)) if kind in LOG_MEANS else mean / unit


def _stderr(key: str) -> str:
    name, _, filter_ = key.rpartition(",")
    return f"{name}_stderr,{filter_}"


def _standard_error(scores: Sequence[float]) -> float:
    mean = math.fsum(scores) / len(scores)
    return math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1) / len(scores))
