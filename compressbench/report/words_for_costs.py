"""Short words for what is asked about: `latency`, `size`, `perplexity` for the full names of cells."""

from __future__ import annotations

from collections.abc import Sequence

from compressbench.core.errors import UnknownNameError
from compressbench.core.names import did_you_mean, one_line
from compressbench.report.rows import CELL_NAMES

WORDS = {
    "latency": "latency_p50_s",
    "p50": "latency_p50_s",
    "p95": "latency_p95_s",
    "p99": "latency_p99_s",
    "ttft": "ttft_p50_s",
    "tpot": "tpot_p50_s",
    "throughput": "throughput_per_s",
    "rate": "max_rate_per_s",
    "energy": "energy_j_per_inference",
    "memory": "peak_memory_bytes",
    "size": "disk_bytes",
    "parameters": "num_parameters",
}
_ALSO = {"accuracy": ("acc",)}


def full_name(word: str, metrics: Sequence[str]) -> str:
    """The name of a cell, "" if there is none: a cost, a short word for one, or one of the tasks' metrics.

    A metric that stands more than once (`perplexity@tinyshakespeare`) may be asked for by its bare name: the first of them.
    """
    if word in metrics or word in CELL_NAMES:
        return word
    asked = (word, *_ALSO.get(word, ()))
    metric = next((name for name in metrics if name.partition("@")[0] in asked), "")
    return metric or WORDS.get(word, "")


def known_name(word: str, metrics: Sequence[str]) -> str:
    """The same, but raises UnknownNameError with the nearest known word if there is none."""
    found = full_name(word, metrics)
    if found:
        return found
    known = [one_line(name) for name in (*metrics, *WORDS, *CELL_NAMES)]
    raise UnknownNameError("no row has such a number", got=one_line(word), do=did_you_mean(word, known))
