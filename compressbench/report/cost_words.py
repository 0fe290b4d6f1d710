"""Short words for numbers, as people say them: `latency`, `energy`, `memory`, `size`, `throughput`, `accuracy`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from compressbench.core.errors import UnknownNameError
from compressbench.core.names import did_you_mean, one_line
from compressbench.report.figures import Contender, names_in
from compressbench.report.rows import CELL_NAMES

ACCURACY = "accuracy"
# the first of which anybody has a value is meant
COST_WORDS = {
    "latency": ("latency_p50_s",),
    "p50": ("latency_p50_s",),
    "p95": ("latency_p95_s",),
    "p99": ("latency_p99_s",),
    "ttft": ("ttft_p50_s",),
    "tpot": ("tpot_p50_s",),
    "throughput": ("throughput_per_s", "output_tokens_per_s"),
    "rate": ("max_rate_per_s",),
    "energy": ("energy_j_per_inference", "energy_j_per_output_token"),
    "memory": ("peak_memory_bytes",),
    "size": ("disk_bytes",),
    "parameters": ("num_parameters",),
    "bits": ("effective_bits",),
}


def names_for(words: Iterable[str]) -> list[str]:
    """Every cell that a word may stand for: what contenders must have before it is known which one is meant."""
    return list(dict.fromkeys(name for word in words for name in COST_WORDS.get(word, (word,))))


def full_name(word: str, contenders: Sequence[Contender], where: str = "") -> str:
    """The cell's name that a word stands for among these contenders. Raises UnknownNameError.

    `accuracy` is the metric of that name, or else the first of which more is better. A metric that stands more than once
    (`perplexity@tinyshakespeare`) may be asked for by its bare name: the first of them.
    """
    metrics = names_in(contenders)
    if word in metrics or word in CELL_NAMES:
        return word
    bare = [name for name in metrics if name.partition("@")[0].partition("#")[0] == word]
    alike = more_is_better(contenders) if word == ACCURACY else []
    if bare or alike:
        return (bare or alike)[0]
    if word in COST_WORDS:
        names = COST_WORDS[word]
        return next((name for name in names if _has_value(name, contenders)), names[0])
    known = [*COST_WORDS, *([ACCURACY] if more_is_better(contenders) else []), *metrics, *CELL_NAMES]
    do = did_you_mean(word, {one_line(name) for name in known})
    raise UnknownNameError("no such number", where=where, got=f"'{one_line(word)}'", do=do)


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
