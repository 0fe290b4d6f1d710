"""`compressbench parity`: does what was exported still answer as the candidate did?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments
from compressbench.core.errors import MissingMeasurementError

if TYPE_CHECKING:
    from compressbench.measure.parity import ParityLimits
    from compressbench.records.deployment import Parity
    from compressbench.records.record import Record


def parity(
    where: Annotated[Path, typer.Argument(metavar="EXPORT", help="A folder of compressbench export, or a record.")],
    max_mean_kl: Annotated[float | None, typer.Option("--max-mean-kl", min=0, help="Nats.", show_default=False)] = None,
    min_top1: Annotated[
        float | None,
        typer.Option("--min-top1", min=0, max=1, help="Share of rows with the same largest logit.", show_default=False),
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option("--max-difference", min=0, help="As a fraction of the largest value.", show_default=False),
    ] = None,
    as_json: arguments.AsJson = False,
) -> None:
    """Open an export in a fresh process, and compare its answers with those that were kept beside it.

    Of a record it prints what its run found. Exit code 1 beyond the limits, 4 if a record has no comparison.
    """
    if where.is_file():
        from compressbench.records.store import read_record

        found = _of_record(read_record(where), where)
    else:
        from compressbench.measure.exporting import parity_of

        found = [parity_of(where, _limits(max_mean_kl, min_top1, max_difference))]
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=1))
    else:
        for each in found:
            say(each)
    if any(each.broken for each in found):
        raise typer.Exit(1)


def _limits(kl: float | None, top1: float | None, difference: float | None) -> ParityLimits | None:
    """None where nothing is asked: those that fit the engine."""
    from compressbench.measure.parity import ParityLimits

    if kl is None and top1 is None and difference is None:
        return None
    asked = {"max_mean_kl": kl, "min_top1_agreement": top1, "max_relative_difference": difference}
    return ParityLimits(**{name: value for name, value in asked.items() if value is not None})


def _of_record(record: Record, path: Path) -> list[Parity]:
    deployment = record.deployment
    both: list[Parity] = []
    if deployment is not None and deployment.to_torch is not None:
        both.append(deployment.to_torch)
    if deployment is not None and deployment.fresh is not None:
        both.append(deployment.fresh.parity)
    if not both:
        reason = "it ran PyTorch's modules as they are" if deployment is None else deployment.not_compared
        if record.failure is not None:
            reason = record.failure.message
        raise MissingMeasurementError("the record has no comparison", where=path.name, got=reason or "none was made")
    return both


def say(parity: Parity) -> None:
    """One line, with a verdict in front."""
    from rich.console import Console
    from rich.text import Text

    from compressbench.core.names import one_line
    from compressbench.report.deployment_words import parity_text
    from compressbench.report.heading import wrapped

    console = Console(highlight=False)
    verdict, style = ("differs", "red") if parity.broken else ("equal within limits", "green")
    for number, line in enumerate(wrapped(one_line(f"{verdict}: {parity_text(parity)}"), console.width)):
        console.print(Text(line, style=style if number == 0 else ""))
