"""What a question costs a model that thinks: the measured rate of a token times the tokens that were counted.

A rate is the baseline's times the paired ratio of the candidate's run, as in `frontier`. Where the meter keeps prefill and
decode apart, a prompt is read once for all samples of a question and each sample costs its own tokens; where it doesn't,
a token's rate holds the workload's share of prefill. Products of a rate and a count are modelled, never measured.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from compressbench.core.equal_energy import Price
from compressbench.report.rows import Cell, Row
from compressbench.report.verdict import Verdict

PER_TOKEN, DECODE, PREFILL = (
    "energy_j_per_output_token", "energy_decode_j_per_output_token", "energy_prefill_j_per_inference",
)  # fmt: skip
RATE, CALL = "output_tokens_per_s", "latency_p50_s"
_Z95 = 1.959963984540054


class Tokens(NamedTuple):
    """Of a question on average: those of its prompt, those that a sample writes, those that a scorer reads of a sample."""

    prompt: float
    written: float
    scored: float


class Costs(NamedTuple):
    """`price` None has its `reason`. `own_error` is the standard error of the logarithm of the ratio to the baseline's,
    `shared_error` that of the baseline's own; `kind` says how the rate was obtained.
    """

    price: Price | None
    own_error: float = 0.0
    shared_error: float = 0.0
    kind: str = ""
    source: str = ""
    reason: str = ""

    @property
    def error(self) -> float:
        return math.hypot(self.own_error, self.shared_error)


class _Rate(NamedTuple):
    """`factor` takes the row's own number to the baseline's times the paired ratio."""

    value: float
    factor: float
    own_error: float
    shared_error: float
    cell: Cell


def joules(row: Row, baseline: Row | None, tokens: Tokens, sequence_length: int) -> Costs:
    """Per question: the prompt once, then every sample's tokens and what a scorer reads of them."""
    rate = _rate(row, baseline, PER_TOKEN, PER_TOKEN)
    if isinstance(rate, str):
        return Costs(None, reason=rate)
    decode, prefill = row.cells.get(DECODE), row.cells.get(PREFILL)
    per_token, per_read, once = rate.value, rate.value, 0.0
    if decode is not None and decode.value and prefill is not None and prefill.value:
        per_token, per_read = decode.value * rate.factor, prefill.value * rate.factor / sequence_length
        once = per_read * tokens.prompt
    price = Price(once, per_token * tokens.written + per_read * tokens.scored)
    return Costs(price, rate.own_error, rate.shared_error, rate.cell.kind, rate.cell.source)


def seconds(row: Row, baseline: Row | None, tokens: Tokens) -> Costs:
    """Of the machine per question at the workload's batch; a token's time holds the workload's share of prefill."""
    rate = _rate(row, baseline, RATE, CALL)
    if isinstance(rate, str):
        return Costs(None, reason=rate)
    price = Price(0.0, (tokens.written + tokens.scored) / rate.value)
    return Costs(price, rate.own_error, rate.shared_error, rate.cell.kind, rate.cell.source)


def _rate(row: Row, baseline: Row | None, name: str, by: str) -> _Rate | str:
    """`by` is the quantity whose paired ratio says how a candidate's differs from its baseline's."""
    if row.not_rankable:
        return row.not_rankable[0]
    own, is_rate = row.cells[name], name == RATE
    if own.value is None or not own.value > 0:
        return own.reason or "it was not recorded"
    if row.role == "baseline":
        return _Rate(own.value, 1.0, 0.0, _log_error(own), own)
    verdict = row.against_baseline.get(by)
    theirs = None if baseline is None else baseline.cells[name]
    if theirs is None or not theirs.value or verdict is None or not verdict.ratio:
        return "it was not paired with its baseline"
    factor = theirs.value * (1 / verdict.ratio if is_rate else verdict.ratio) / own.value
    return _Rate(own.value * factor, factor, _ratio_error(verdict), _log_error(theirs), own)


def _ratio_error(verdict: Verdict) -> float:
    """Of the interval, or what the baseline differs from itself, if that is more."""
    if not verdict.low or not verdict.high or verdict.low <= 0:
        return 0.0
    noise = math.log1p(verdict.noise or 0.0) / _Z95
    return max(math.log(verdict.high / verdict.low) / 2 / _Z95, noise)


def _log_error(cell: Cell) -> float:
    if not cell.low or not cell.high or cell.low <= 0:
        return 0.0
    return math.log(cell.high / cell.low) / 2 / _Z95
