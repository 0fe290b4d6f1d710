"""How one number of a row reads on a leaderboard: value, interval, and what may be said against the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from compressbench.core.names import one_line
from compressbench.core.units import unit_of
from compressbench.report.figures import Figure
from compressbench.report.own_baseline import together, told_apart
from compressbench.report.quality_words import signed
from compressbench.report.words import DASH, claim_lines, title, value_text

if TYPE_CHECKING:
    from compressbench.report.rows import Cell
    from compressbench.report.verdict import Verdict

Tone = Literal["good", "bad", ""]
_GOOD, _BAD = {"faster", "improved", "equivalent"}, {"slower", "degraded"}


class CellText(NamedTuple):
    """`claim` is what may be said against the baseline, `claim_interval` how surely; "" where nothing is said."""

    value: str
    interval: str
    claim: str
    claim_interval: str
    tone: Tone


NOTHING = CellText(DASH, "", "", "", "")


class _Number(NamedTuple):
    """What is read of a Cell, which takes ten times longer to make."""

    value: float | None
    unit: str
    kind: str


class _Claim(NamedTuple):
    """What is read of a Verdict."""

    verdict: str
    ratio: float | None
    low: float | None
    high: float | None


def quantity_title(name: str) -> str:
    return one_line(title(name))


def cell_text(name: str, figure: Figure, units: Mapping[str, str], shown: float | None = None) -> CellText:
    """`units` are those of the metrics: a cost's is in its name. `shown` is the value in the baseline's row: where another
    ran beside this row, it stands before an arrow.
    """
    unit = units.get(name) if name in units else unit_of(name)
    value = _text(name, figure.value, unit or "", figure.kind)
    own = None if figure.value is None else told_apart(figure.baseline_value, shown)
    claim, claim_interval = _claim(name, figure, unit or "", is_metric=name in units)
    return CellText(
        value=value if own is None else together(_text(name, own, unit or ""), value),
        interval=_interval(name, figure, unit or ""),
        claim=claim,
        claim_interval=claim_interval,
        tone=tone_of(figure),
    )


def tone_of(figure: Figure) -> Tone:
    if figure.verdict in _GOOD or (figure.verdict in ("lower", "higher") and figure.verdict == figure.direction):
        return "good"
    return "bad" if figure.verdict in (*_BAD, "lower", "higher") else ""


def _text(name: str, value: float | None, unit: str, kind: str = "") -> str:
    return value_text(name, cast("Cell", _Number(value, unit, kind)))


def _interval(name: str, figure: Figure, unit: str) -> str:
    """`4.10–4.32 ms`: the unit once where both ends have the same; "" for what was counted."""
    if figure.value is None or figure.low is None or figure.high is None or figure.low == figure.high:
        return ""
    low, high = _text(name, figure.low, unit), _text(name, figure.high, unit)
    number, _, suffix = low.rpartition(" ")
    if number and high.endswith(f" {suffix}"):
        return f"{number}–{high}"
    return f"{low} – {high}" if " " in low else f"{low}–{high}"


def _claim(name: str, figure: Figure, unit: str, *, is_metric: bool) -> tuple[str, str]:
    if not figure.verdict:
        return "", ""
    if is_metric:
        return _difference(figure, 100 if unit == "fraction" else 1)
    verdict = _Claim(figure.verdict, figure.ratio, figure.ratio_low, figure.ratio_high)
    claim, interval = [*claim_lines(name, cast("Verdict", verdict)), "", ""][:2]
    return claim.replace("x", "×") if figure.ratio is not None else claim, interval


def _difference(figure: Figure, scale: int) -> tuple[str, str]:
    change, low, high = figure.difference, figure.difference_low, figure.difference_high
    if change is None or low is None or high is None:
        return figure.verdict, ""
    half = scale * (high - low) / 2
    texts = [signed(scale * value, half) for value in (change, low, high)]
    return f"{texts[0]} {figure.verdict}", f"[{texts[1]}, {texts[2]}]"
