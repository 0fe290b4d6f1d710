"""Short words for costs, as people say them: `latency`, `energy`, `memory`, `size`, `throughput`, `accuracy`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from compressbench.core.errors import UnknownNameError
from compressbench.core.names import did_you_mean
from compressbench.report.figures import Contender, names_in
from compressbench.report.rows import CELL_NAMES

ACCURACY = "accuracy"
# the first of which anybody has a value is meant
COST_WORDS = {
    "latency": ("latency_p50_s",),
    "energy": ("energy_j_per_inference", "energy_j_per_output_token"),
    "memory": ("peak_memory_bytes",),
    "size": ("disk_bytes",),
    "throughput": ("throughput_per_s", "output_tokens_per_s"),
}
NAMES_OF_WORDS = tuple(name for names in COST_WORDS.values() for name in names)


def full_name(word: str, contenders: Sequence[Contender], where: str = "") -> str:
    """The cell's name that a word stands for among these contenders.

    `accuracy` is the metric of that name, or else the first of which more is better. Raises UnknownNameError.
    """
    metrics = names_in(contenders)
    if word in metrics or word in CELL_NAMES:
        return word
    if word == ACCURACY:
        of_accuracy = more_is_better(contenders)
        if of_accuracy:
            return of_accuracy[0]
    if word in COST_WORDS:
        names = COST_WORDS[word]
        return next((name for name in names if _has_value(name, contenders)), names[0])
    known = [*COST_WORDS, *([ACCURACY] if more_is_better(contenders) else []), *metrics, *CELL_NAMES]
    raise UnknownNameError("no such number", where=where, got=f"'{word}'", do=did_you_mean(word, set(known)))


def more_is_better(contenders: Iterable[Contender]) -> list[str]:
    """The metrics of which more is better, in their order."""
    found: dict[str, None] = {}
    for contender in contenders:
        for name in contender.metrics:
            if name not in found and is_more_better(contender, name):
                found[name] = None
    return list(found)


def is_more_better(contender: Contender, name: str) -> bool:
    figure = contender.figures.get(name)
    return figure is not None and figure.direction == "higher"


def _has_value(name: str, contenders: Iterable[Contender]) -> bool:
    return any(each.figures[name].value is not None for each in contenders if name in each.figures)
