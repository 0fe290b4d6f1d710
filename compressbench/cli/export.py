"""`compressbench export`: a kept candidate in the files of another engine, proven equal in a fresh process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from compressbench.cli import arguments
from compressbench.core.errors import InputError, UnsupportedError


def export(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A record of a run with --save.")],
    to: Annotated[str, typer.Option("--to", help="onnx, openvino, safetensors, compressed-tensors or gguf.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the files.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="Of the engine, such as quantize=int8-dynamic; may be repeated."),
    ] = None,
    as_json: arguments.AsJson = False,
) -> None:
    """Write a kept candidate for another engine, and compare what a fresh process answers with the candidate.

    Exit code 1 if the answers differ by more than the limits; the files stay, so that they can be looked at. Exit code 2
    if the engine can't load such a candidate.
    """
    from compressbench.measure.exporting import export as write
    from compressbench.measure.exporting import inputs_of, kept_folder
    from compressbench.records.store import read_record

    found = read_record(record)
    folder = kept_folder(record, found)
    asked = _options(option or [])
    try:
        done = write(folder, to, output, options=asked, inputs=inputs_of(found))
    except UnsupportedError as error:
        # of a run it is a failed cell; here the reader asked for it
        raise InputError(error.what, where=error.where, got=error.got, do=error.do) from error
    if as_json:
        data = {
            "folder": str(done.folder),
            "num_bytes": done.num_bytes,
            "note": done.note,
            "parity": done.parity.model_dump(mode="json"),
        }
        typer.echo(json.dumps(data, indent=1))
    else:
        from compressbench.cli.parity import say
        from compressbench.core.units import humanize

        typer.echo(f"{done.folder}: {humanize(done.num_bytes, 'B')}{done.note and f'; {done.note}'}")
        say(done.parity)
    if done.parity.broken:
        raise typer.Exit(1)


def _options(given: list[str]) -> dict[str, object]:
    """`name=value`, values read as JSON where they are some, else as text."""
    found: dict[str, object] = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not sign or not name:
            raise InputError("an option is NAME=VALUE", got=each)
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
