"""`compressbench validate`: is this recipe right?"""

from __future__ import annotations

import json

import typer

from compressbench.cli import arguments


def validate(recipe: arguments.Recipe, data_root: arguments.DataRoot = None, as_json: arguments.AsJson = False) -> None:
    """Check a recipe without loading anything: names, options, values, combinations, model and data.

    Exit code 2, with file, line, key and the nearest right word, if anything is wrong.
    """
    from compressbench.plan import plan_file

    plan = plan_file(str(recipe), data_root=data_root)
    if as_json:
        typer.echo(json.dumps({"recipe": plan.recipe.name, "hash": plan.recipe_hash, "is_valid": True}))
    else:
        count = len(plan.cells) - 1
        candidates = f"{count} candidate{'' if count == 1 else 's'}"
        typer.echo(f"{recipe}: valid; 1 baseline, {candidates}, hash {plan.recipe_hash}")
