"""One record in words for a terminal: what is wrong with it first, then its numbers, how they came, how to repeat them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from compressbench.core.names import one_line
from compressbench.core.units import humanize
from compressbench.records.record import Record
from compressbench.records.store import Unreadable
from compressbench.report.audit_lines import audit_lines
from compressbench.report.detail import latency_of, measured, notes_of, options_text
from compressbench.report.figures import HIGHER_IS_BETTER
from compressbench.report.heading import heading, wrapped
from compressbench.report.own_baseline import baselines_of, together
from compressbench.report.reproduce import reproduce
from compressbench.report.rows import Row, rows_of
from compressbench.report.score_facts import score_facts
from compressbench.report.words import DASH, cell_lines, columns, title, value_text, verdict_of

Line = list[tuple[str, str]]
"""Pieces of text, each with its style: bold, dim, red, green, yellow or none."""

_LABEL = 14
_NUMBER = 40
_BARS = " ▁▂▃▄▅▆▇█"
_TAILS = ("latency_p95_s", "latency_p99_s")


def record_lines(
    record: Record, run: Sequence[Record], unreadable: Sequence[Unreadable] = (), *, width: int = 80
) -> Iterator[Line]:
    """`run` has all records of its run that are known, itself among them: verdicts need the baseline and count them all.

    Nothing is wider than `width`, but for the commands, which are to be copied.
    """
    rows = rows_of(run)
    row = rows[list(run).index(record)]
    yield [(f"{record.candidate}  ({record.status})", "bold")]
    yield from ([(line, "dim")] for line in wrapped(one_line(heading(record)), width))
    if row.status == "ok":
        yield from _wrapped("", row.steps or "nothing was compressed", width)
    yield from _faults(record, row, unreadable, width)
    yield from _headlines(row, rows, width)
    yield from _latencies(record, width)
    yield []
    for name, text in _facts(record):
        yield from _wrapped(name, text, width)
    yield from _conditions(row, width)
    yield from _reproduce(record, width)
    yield from _numbers(row, width)


def _wrapped(label: str, text: str, width: int, *, indent: int = _LABEL, style: str = "") -> Iterator[Line]:
    """A text beside its label, all its lines as far to the right."""
    indent = indent if label else 0
    parts = textwrap.wrap(text, max(20, width - indent), break_on_hyphens=False) or [""]
    yield [(f"{label:<{indent}}", "dim"), (parts[0], style)]
    for part in parts[1:]:
        yield [(" " * indent + part, style)]


def _faults(record: Record, row: Row, unreadable: Sequence[Unreadable], width: int) -> Iterator[Line]:
    failure = record.failure
    found = [("FAILED", f"{failure.type}: {failure.message}", "bold red")] if failure is not None else []
    found += [("FALSE CLAIM", claim, "bold red") for claim in row.false_claims or ()]
    found += [("NOT RANKED", reason, "red") for reason in row.not_rankable]
    found += [("mind", reason, "yellow") for reason in row.warnings]
    found += [("left out", each.reason, "yellow") for each in unreadable]
    if found:
        yield []
    for label, text, style in found:
        yield from ([(piece, style) for piece, _ in line] for line in _wrapped(label, text, width))


def _headlines(row: Row, rows: Sequence[Row], width: int) -> Iterator[Line]:
    """The numbers of a table's row, each with what may be said against the baseline."""
    if row.status != "ok":
        return
    yield []
    has_baseline = any(each.role == "baseline" and each.status == "ok" for each in rows)
    if row.role == "baseline":
        yield from _wrapped("", "This is the baseline that the candidates of the run are compared with.", width)
    elif not has_baseline:
        what = "The baseline of this run is not in the same folder, and verdicts need it."
        yield from _wrapped("", what, width, style="yellow")
    names = list(dict.fromkeys([*columns([row]), *_TAILS]))
    for name in names:
        value, *said = cell_lines(row, name, baselines_of(rows))
        if value and (value != DASH or name not in _TAILS):
            yield from _headline(row, name, value, said, width)


def _headline(row: Row, name: str, value: str, said: Sequence[str], width: int) -> Iterator[Line]:
    claim = " ".join(said[:2])
    verdict = verdict_of(row, name)
    line: Line = [(f"{title(name):<24}", ""), (f"{value:>14}", "bold")]
    yield [*line, (f"  {claim}", _style(name, "" if verdict is None else verdict.verdict))] if claim else line
    reason = "" if verdict is None else verdict.reason
    cell = row.cells.get(name)
    why = cell.reason if cell is not None and cell.value is None else reason
    for text in (", ".join(said[2:]), why):
        if text:
            for part in textwrap.wrap(text, max(20, width - _NUMBER)):
                yield [(" " * _NUMBER + part, "dim")]


def _style(name: str, word: str) -> str:
    """Green for what is better than the baseline beyond doubt, red for what is worse."""
    if word in ("faster", "improved", "equivalent"):
        return "green"
    if word in ("slower", "degraded"):
        return "red"
    if word in ("lower", "higher"):
        return "green" if (word == "higher") == (name in HIGHER_IS_BETTER) else "red"
    return "dim"


def _latencies(record: Record, width: int) -> Iterator[Line]:
    """A histogram in one line for each arm, both in the same bins and on the same scale."""
    found = latency_of(record)
    if "reason" in found:
        return
    edges, arms = found["edges_ns"], found["arms"]
    yield []
    span = f"{_seconds(edges[0])} to {_seconds(edges[-1])} in {len(edges) - 1} bins"
    slower = ", ".join(f"{each['above']} of the {arm}" for arm, each in arms.items() if each["above"])
    yield from _wrapped("latencies", span + (f"; slower calls: {slower}" if slower else ""), width)
    most = max(count / each["num_calls"] for each in arms.values() for count in each["counts"])
    for arm, each in arms.items():
        bars = sparkline([count / each["num_calls"] for count in each["counts"]], most)
        style = "bold" if arm == record.role else "dim"
        yield [(f"{arm:<{_LABEL}}", style), (bars, style), (f"  {each['num_calls']} calls", "dim")]
        quantiles = each["quantiles_ns"].items()
        text = ", ".join(f"{name} {DASH if value is None else _seconds(value)}" for name, value in quantiles)
        yield [(f"{'':<{_LABEL}}{text}, slowest {_seconds(each['slowest_ns'])}", "dim")]


def sparkline(values: Sequence[float], most: float) -> str:
    """A bar for each value, as high as its share of `most`; whatever isn't 0 shows."""
    top = len(_BARS) - 1
    return "".join(_BARS[0 if value <= 0 else max(1, min(top, round(top * value / most)))] for value in values)


def _seconds(nanoseconds: float) -> str:
    return humanize(nanoseconds / 1e9, "s")


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    model = record.model
    yield "key", record.key
    yield "recipe", f"{record.recipe.name} {record.recipe.hash}"
    if model is not None:
        code = ", with code of its own" if model.trust_remote_code else ""
        yield "model", f"{model.id} @ {model.revision[:24]} ({model.architecture}, {model.dtype}{code})"
    for step in record.steps:
        notes = notes_of(step.notes)
        yield (
            "step",
            f"{step.use} {options_text(step.options)}: {humanize(step.seconds, 's')}; {notes}".replace(" :", ":"),
        )
    for score in record.scores:
        yield "data", f"{score.data} {score.split} @ {score.data_revision[:24]}, {score.num_samples} samples"
        yield "protocol", score.protocol_id
        yield from score_facts(score)
    if record.measurement is not None:
        yield from measured(record, record.measurement)
    if record.audit is not None:
        yield "audit", next(audit_lines(record.audit))[0] + " (compressbench audit says more)"
    if record.artefact is not None:
        kept = record.artefact
        yield "artefact", f"{kept.folder}, {humanize(kept.num_bytes, 'B')}"
        yield "reading it", f"loaded again, logits differ by at most {kept.max_difference:g}"


def _conditions(row: Row, width: int) -> Iterator[Line]:
    yield []
    yield [("Conditions", "bold"), (f"  comparability key {row.comparability_key}", "dim")]
    for name, value in row.conditions.items():
        yield from _wrapped(name.replace("_", " "), value, width, indent=20)


def _reproduce(record: Record, width: int) -> Iterator[Line]:
    how = reproduce(record)
    yield []
    yield [("Make it again", "bold"), (f"  compressbench show RECORD --recipe > {how['file']}", "dim")]
    yield [(how["install"], "")]
    yield [(how["run"], "")]
    for note in how["notes"]:
        yield from _wrapped("", note, width, style="dim")


def _numbers(row: Row, width: int) -> Iterator[Line]:
    """A line for each number with its interval and kind, and where it came from; reasons of absence once each."""
    yield []
    yield [("Every number, and where it came from", "bold")]
    absent: dict[str, list[str]] = {}
    for name, cell in row.cells.items():
        if cell.value is None:
            absent.setdefault(cell.reason, []).append(title(name))
            continue
        texts = [
            value_text(name, cell.model_copy(update={"value": value, "kind": ""}))
            for value in (cell.value, cell.low, cell.high)
        ]
        interval = "" if cell.low is None or cell.high is None else f"[{together(texts[1], texts[2], ', ')}]"
        yield [(f"{title(name):<30}{texts[0]:>12}  {interval:<22} {cell.kind}".rstrip(), "")]
        yield from ([("    ", ""), *line] for line in _wrapped("", cell.source, width - 4, style="dim"))
    for reason, names in absent.items():
        yield from _wrapped(DASH, ", ".join(names), width, indent=4)
        yield from ([("    ", ""), *line] for line in _wrapped("", reason, width - 4, style="dim"))
