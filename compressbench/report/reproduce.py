"""How to make a record's numbers again: its recipe as a file that loads, and the commands that install and run it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from compressbench.core.errors import RecipeError
from compressbench.core.names import SAFE_NAME, one_line
from compressbench.records.record import Record

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._!-]{0,63}(\+[A-Za-z0-9.]{1,32})?")
_LIKE_A_NUMBER = re.compile(r"[-+.0-9][-+.0-9_a-fA-FxXoO]*")
_FIRST = ("compressbench", "torch", "transformers", "tokenizers")
_COMES_WITH_IT = ("embedded:", "random:")


def reproduce(record: Record) -> dict[str, Any]:
    """Plain data: the file's name, what to install, what to run, what was pinned, and what a reader must mind."""
    name = record.recipe.name
    stem = name if SAFE_NAME.fullmatch(name) and not name.startswith("-") else "recipe"
    return {
        "file": f"{stem}.yaml",
        "install": install_command(record.environment.packages),
        "run": f"compressbench run {shlex.quote(f'{stem}.yaml')} --out {shlex.quote(f'results/{stem}')}",
        "pins": [list(each) for each in _pins(record)],
        "notes": list(_notes(record)),
    }


def install_command(packages: Mapping[str, str | None]) -> str:
    """pip with every version that the record knows; parts such as `+cpu` are left out, for no index has them."""
    found = {name: version for name, version in packages.items() if version and _VERSION.fullmatch(version)}
    ordered = {name: found[name] for name in (*_FIRST, *sorted(found)) if name in found and SAFE_NAME.fullmatch(name)}
    return " ".join(["pip install", *(f"{name}=={version.partition('+')[0]}" for name, version in ordered.items())])


def _pins(record: Record) -> Iterator[tuple[str, str, str]]:
    """What, which one, and how its revision is held fast."""
    model = record.model
    if model is not None:
        asked = record.recipe.text["model"]
        revision = asked.get("revision") if isinstance(asked, Mapping) else None
        yield "model", f"{model.id} @ {model.revision}", _how(model.id, revision, "model.revision", model.revision)
    for score in record.scores:
        revision = score.options.get("revision")
        yield (
            "data",
            f"{score.data} {score.split} @ {score.data_revision}",
            _how(score.data, revision, f"the revision of {score.label or score.task}", score.data_revision),
        )


def _how(name: str, asked: object, key: str, found: str) -> str:
    if name.startswith(_COMES_WITH_IT):
        return "comes with compressbench"
    if asked:
        return "pinned in the recipe"
    if re.fullmatch(r"[0-9a-f]{40}", found):
        return f"not pinned in the recipe: set {key} to this commit"
    return "a local copy: compare the checksum"


def _notes(record: Record) -> Iterator[str]:
    environment = record.environment
    builds = [
        f"{name} {version}"
        for name, version in environment.packages.items()
        if version and "+" in version and _VERSION.fullmatch(version)
    ]
    if builds:
        yield f"It ran on builds that the default index doesn't have: {', '.join(builds)}."
    yield f"It ran on {environment.python}, {environment.num_threads or 'an unknown number of'} threads, {record.device}."
    if record.model is not None and record.model.trust_remote_code:
        yield "The model brings code of its own, which runs."


def recipe_yaml(record: Record) -> str:
    """The whole recipe as YAML, with the same hash when it is planned; what was pinned stands in comments.

    Defaults are left out where the recipe still reads as the same one; a recipe of another version keeps every key.
    """
    head = [
        f"# hash {record.recipe.hash}, run {record.run_id}",
        *(f"# {what}: {which}" for what, which, _ in _pins(record)),
    ]
    comments = "".join(f"{one_line(line)}\n" for line in dict.fromkeys(head))
    return comments + _yaml_of(json.dumps(record.recipe.text))


@lru_cache(maxsize=256)
def _yaml_of(text: str) -> str:
    """Kept for the candidates of a recipe, which all have the same."""
    import yaml

    data = _without_defaults(json.loads(text))
    # whatever isn't ASCII is escaped: a name that turns the direction of writing must not do so in a terminal
    return str(yaml.dump(data, Dumper=_dumper(), sort_keys=False, default_flow_style=None, width=100))


@lru_cache(maxsize=1)
def _dumper() -> Any:
    """Recipes are read as YAML 1.2, where `1e5` is a number; PyYAML writes 1.1, where it is a text without quotes."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        pass

    def represent(dumper: Any, text: str) -> Any:
        style = "'" if _LIKE_A_NUMBER.fullmatch(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return Dumper


def _without_defaults(text: dict[str, Any]) -> dict[str, Any]:
    """The recipe as a person would write it, or `text` itself where that would be another recipe."""
    from compressbench.recipe.load import parse_recipe
    from compressbench.recipe.schema import canonical

    try:
        recipe = parse_recipe(text).recipe
        short = recipe.model_dump(mode="json", exclude_defaults=True)
        inherited = recipe.model_dump(mode="json")["baseline"]["runtime"]
        for candidate in short.get("candidates", ()):
            if candidate.get("runtime") == inherited:
                del candidate["runtime"]
        is_same = canonical(parse_recipe(short).recipe) == canonical(recipe)
    except RecipeError:
        return text
    return short if is_same else text
