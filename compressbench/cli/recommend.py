"""`compressbench recommend`: the one model to deploy, and why not the others."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments, goal_flags, reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressbench.report.catalog import Catalog
    from compressbench.report.figures import Contender
    from compressbench.report.policy import Policy
    from compressbench.report.recommend import Recommendation


class Form(StrEnum):
    terminal = "terminal"
    md = "md"
    json = "json"


def recommend(
    records: reading.Records,
    policy: goal_flags.PolicyFile = None,
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            help="What is to be as good as it can be: latency, throughput, energy, memory, size, accuracy, or any name of "
            "table --json; latency if nothing is said, throughput offline.",
            show_default=False,
        ),
    ] = "",
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
    force: reading.Force = False,
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print it.")] = Form.terminal,
    as_json: arguments.AsJson = False,
) -> None:
    """Say which model to deploy: of those that meet every goal by the bounds of their intervals the best, or the baseline.

    Exit 6 if no candidate qualifies; then the nearest miss is printed. Exit 5 if the records can't be ranked together.
    """
    from compressbench.core.errors import NoCandidateError
    from compressbench.core.garbage import no_garbage_collection
    from compressbench.report.policy import names_needed
    from compressbench.report.recommend import recommend as decide

    numbers = {
        "max_latency_p95_s": max_latency_p95_s,
        "max_memory_gb": max_memory_gb,
        "max_size_gb": max_size_gb,
        "max_energy_j": max_energy_j,
        "min_throughput": min_throughput,
        "max_accuracy_drop": max_accuracy_drop,
    }
    asked = goal_flags.read_policy(policy, numbers, goal or (), objective=objective, max_stratum_drop=max_stratum_drop)
    with no_garbage_collection():
        catalog = reading.read_catalog(records, all_runs=all_runs)
        contenders = reading.pick(catalog, names_needed(asked), recipe=recipe, key=key)
        found = decide(catalog, contenders, asked, _watermark(catalog, contenders, asked, force=force))
        _print(found, catalog, "json" if as_json else form.value)
    if found.deploy is None:
        count = len(found.rejected)
        raise NoCandidateError(
            "the only candidate does not meet every goal"
            if count == 1
            else f"none of {count} candidates meets every goal"
        )


def _watermark(catalog: Catalog, contenders: Sequence[Contender], asked: Policy, *, force: bool) -> str:
    """What a choice among rows that can't be compared is marked with, if it is forced; "" where they can be."""
    from compressbench.report.groups import one_group, one_model
    from compressbench.report.policy import asks_quality_itself, resolved

    watermark = one_group(catalog, contenders, force=force)
    if asks_quality_itself(resolved(asked, contenders), contenders):
        return watermark
    return watermark or one_model(contenders, force=force)


def _print(found: Recommendation, catalog: Catalog, form: str) -> None:
    from compressbench.report.answer import answer_of
    from compressbench.report.recommend_words import print_answer, to_json_text, to_markdown

    if form == "json":
        typer.echo(to_json_text(found, catalog), nl=False)
    elif form == "md":
        typer.echo(to_markdown(answer_of(found, catalog)), nl=False)
    else:
        from rich.console import Console

        print_answer(answer_of(found, catalog), Console(highlight=False))
