"""`compressbench gate`: a policy against records, for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments, goal_flags, reading

if TYPE_CHECKING:
    from compressbench.report.gate import Gate


def gate(
    records: reading.Records,
    policy: goal_flags.PolicyFile = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", help="Only this candidate. May be repeated.", show_default=False),
    ] = None,
    max_latency_p95_s: goal_flags.MaxLatencyP95 = None,
    max_memory_gb: goal_flags.MaxMemory = None,
    max_size_gb: goal_flags.MaxSize = None,
    max_energy_j: goal_flags.MaxEnergy = None,
    min_throughput: goal_flags.MinThroughput = None,
    max_accuracy_drop: goal_flags.MaxAccuracyDrop = None,
    max_stratum_drop: goal_flags.MaxStratumDrop = None,
    goal: goal_flags.Goals = None,
    recipe: reading.RecipeName = "",
    key: reading.Key = "",
    all_runs: reading.AllRuns = False,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write a summary for a pull request here.", show_default=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.", show_default=False)] = None,
    as_json: arguments.AsJson = False,
) -> None:
    """Judge every candidate by every goal of a policy: exit 0 if all are met, 1 if any is missed, 2 if any is undecided.

    A row that failed, is implausible or isn't what it claims to be fails. Exit 4 if a number under `require` is missing.
    """
    from compressbench.core.garbage import no_garbage_collection
    from compressbench.report.gate import gate as judge
    from compressbench.report.goal_words import units_of
    from compressbench.report.policy import names_needed

    numbers = {
        "max_latency_p95_s": max_latency_p95_s,
        "max_memory_gb": max_memory_gb,
        "max_size_gb": max_size_gb,
        "max_energy_j": max_energy_j,
        "min_throughput": min_throughput,
        "max_accuracy_drop": max_accuracy_drop,
    }
    said = {"max_stratum_drop": max_stratum_drop, "candidates": tuple(candidate or ())}
    asked = goal_flags.read_policy(policy, numbers, goal or (), **said)
    with no_garbage_collection():
        catalog = reading.read_catalog(records, all_runs=all_runs)
        contenders = reading.pick(catalog, names_needed(asked), recipe=recipe, key=key)
        found = judge(catalog, contenders, asked)
        _give(found, units_of(catalog, contenders), markdown, junit, as_json)
    _leave(found)


def _give(found: Gate, units: dict[str, str], markdown: Path | None, junit: Path | None, as_json: bool) -> None:
    from compressbench.records.files import write_atomically
    from compressbench.report.gate_words import print_gate, to_json_text, to_markdown

    if markdown is not None:
        write_atomically(markdown, to_markdown(found, units).encode())
    if junit is not None:
        from compressbench.report.junit import to_junit

        write_atomically(junit, to_junit(found, units).encode())
    if as_json:
        typer.echo(to_json_text(found, units), nl=False)
    else:
        from rich.console import Console

        print_gate(found, units, Console(highlight=False))


def _leave(found: Gate) -> None:
    from compressbench.core.errors import MissingMeasurementError

    if found.outcome == "missing":
        contender, judgement = found.missing[0]
        raise MissingMeasurementError(
            f"{judgement.figure} is required", where=contender.candidate, got=judgement.reason, do="Measure it."
        )
    raise typer.Exit(found.exit_code)
