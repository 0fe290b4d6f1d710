"""Arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML).", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the records.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        envvar="COMPRESSBENCH_DATA_ROOT",
        help="Folder of local copies of data sets; ready-made tasks that aren't there are read from the Hub.",
        show_default=False,
    ),
]
