"""`compressbench doctor`: what this machine can do, and how to make it do more."""

from __future__ import annotations

import json
from typing import Any

import typer

from compressbench.cli import arguments


def doctor(as_json: arguments.AsJson = False) -> None:
    """Say what this machine can do: devices, meters (and why one is absent), runtimes, methods and what they lack."""
    from compressbench.cli.checkup import check_up

    findings = check_up()
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        _print(findings)


def _print(findings: list[Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table("", "what", "is it usable?", box=box.SIMPLE_HEAD)
    grid.columns[1].no_wrap = True
    last = ""
    for finding in findings:
        mark = Text("yes" if finding.is_usable else "no", style="green" if finding.is_usable else "yellow")
        text = Text.assemble(mark, f"  {finding.detail}", (f"\n{finding.do}" if finding.do else "", "dim"))
        grid.add_row(Text("" if finding.room == last else finding.room, style="bold"), finding.name, text)
        last = finding.room
    Console().print(grid)
