"""`compressbench show`: one record, whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments

if TYPE_CHECKING:
    from compressbench.records.record import Record


def show(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="One record file.", show_default=False)],
    as_json: arguments.AsJson = False,
) -> None:
    """Show one record: what was done, what came out and how it was obtained, what is absent and why, and where it ran."""
    from compressbench.records.store import read_record

    found = read_record(record)
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json"), indent=1))
    else:
        _print(found)


def _print(record: Record) -> None:
    from rich.console import Console
    from rich.text import Text

    from compressbench.core.names import one_line
    from compressbench.report.heading import heading

    console = Console(highlight=False)
    console.print(Text(one_line(f"{record.candidate}  ({record.status})"), style="bold"))
    console.print(Text(one_line(heading(record)), style="dim"))
    for name, text in _facts(record):
        console.print(Text(one_line(f"{name:<12}{text}")))
    console.print()
    for line, origin in _numbers(record):
        console.print(Text(one_line(line)))
        console.print(Text(one_line(f"    {origin}"), style="dim"))


def _numbers(record: Record) -> Iterator[tuple[str, str]]:
    """A line for each number with its interval and kind, and where it came from or why it isn't there."""
    from compressbench.report.rows import rows_of
    from compressbench.report.words import title, value_text

    for name, cell in rows_of([record])[0].cells.items():
        texts = [
            value_text(name, cell.model_copy(update={"value": value, "kind": ""}))
            for value in (cell.value, cell.low, cell.high)
        ]
        interval = "" if cell.low is None or cell.high is None else f"[{texts[1]}, {texts[2]}]"
        yield f"{title(name):<22}{texts[0]:>12}  {interval:<28}{cell.kind}".rstrip(), cell.reason or cell.source


def _facts(record: Record) -> list[tuple[str, str]]:
    from compressbench.core.units import humanize
    from compressbench.report.audit_lines import audit_lines
    from compressbench.report.score_facts import score_facts

    model = record.model
    facts = [("key", record.key), ("recipe", f"{record.recipe.name} {record.recipe.hash}")]
    if model is not None:
        code = ", with code of its own" if model.trust_remote_code else ""
        facts.append(("model", f"{model.id} @ {model.revision[:24]} ({model.architecture}, {model.dtype}{code})"))
    for step in record.steps:
        notes = ", ".join(f"{key}={value}" for key, value in step.notes.items())
        options = " ".join(f"{key}={value}" for key, value in step.options.items() if value not in (None, [], ()))
        facts.append(("step", f"{step.use} {options}: {step.seconds:.1f} s; {notes}".replace(" :", ":")))
    for score in record.scores:
        facts.append(("data", f"{score.data} {score.split} @ {score.data_revision[:24]}, {score.num_samples} samples"))
        facts.append(("protocol", score.protocol_id))
        facts += score_facts(score)
    if record.measurement is not None:
        facts += _measured(record)
    if record.audit is not None:
        facts.append(("audit", next(audit_lines(record.audit))[0] + " (compressbench audit says more)"))
    if record.artefact is not None:
        kept = record.artefact
        facts.append(
            (
                "artefact",
                f"{kept.folder}, {humanize(kept.num_bytes, 'B')}; "
                f"loaded again, logits differ by at most {kept.max_difference:g}",
            )
        )
    if record.failure is not None:
        facts.append(("failure", f"{record.failure.type}: {record.failure.message}"))
    return facts


def _measured(record: Record) -> list[tuple[str, str]]:
    measurement = record.measurement
    assert measurement is not None  # noqa: S101 -- the caller asks for measured records only
    warm = measurement.warm_up[record.role]
    calls = sum(len(block.latencies_ns) for block in measurement.blocks if block.arm == record.role)
    return [
        ("warm-up", f"{warm.num_calls} calls, first {1e3 * warm.first_call_s:.1f} ms, steady: {warm.steady_state}"),
        ("measured", f"{calls} calls in {len(measurement.blocks)} interleaved blocks of both arms"),
        ("overhead", f"{measurement.harness_overhead_ns:.0f} ns per call"),
    ]
