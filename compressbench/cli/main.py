"""The command `compressbench`: its verbs, and how an error becomes one message and an exit code."""

from __future__ import annotations

import sys

import typer

from compressbench import __version__
from compressbench.cli import (
    audit,
    breakeven,
    carbon,
    compare,
    diff,
    doctor,
    export,
    fleet,
    frontier,
    gate,
    leaderboard,
    listing,
    load,
    pareto,
    parity,
    plan,
    recommend,
    run,
    show,
    statement,
    table,
    think,
    validate,
)
from compressbench.core.errors import CompressbenchError

app = typer.Typer(
    name="compressbench",
    help="Which compressed model should I deploy?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("validate")(validate.validate)
app.command("plan")(plan.plan)
app.command("list")(listing.list_names)
app.command("show")(show.show)
app.command("audit")(audit.audit)
app.command("export")(export.export)
app.command("parity")(parity.parity)
app.command("table")(table.table)
app.command("compare")(compare.compare)
app.command("pareto")(pareto.pareto)
app.command("recommend")(recommend.recommend)
app.command("gate")(gate.gate)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("carbon")(carbon.carbon)
app.command("breakeven")(breakeven.breakeven)
app.command("fleet")(fleet.fleet)
app.command("frontier")(frontier.frontier)
app.command("statement")(statement.statement)
app.command("think")(think.think)
app.command("load")(load.load)
app.command("diff")(diff.diff)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"compressbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Which compressed model should I deploy?"""


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command; its exit code. Whatever goes wrong is one message on standard error, never a traceback of ours."""
    try:
        app(arguments)
    except CompressbenchError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0
