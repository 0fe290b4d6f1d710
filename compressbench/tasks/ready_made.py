"""Ready-made tasks: one YAML file each under `ready/`, that a recipe names like any task.

`use: sst2` is ready/sst2.yaml: a kind of task and its options, which those in the recipe overrule. The same file works
with the Hub and, below a data root, with the local copy that its `local` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from compressbench.core.errors import DataError
from compressbench.core.names import did_you_mean
from compressbench.core.spec import Spec
from compressbench.data.data_root import PREFIX, below_root, has_data_root
from compressbench.recipe.problems import recipe_error
from compressbench.recipe.use import Use
from compressbench.recipe.yaml_nodes import read_yaml

FOLDER = Path(__file__).parent / "ready"
_SOURCE_OPTIONS = {"data", "config", "revision"}


class ReadyTask(Spec):
    """What one file says. `local` are the options that differ where the local copy is read; its `data` is a folder or
    file below the data root, and may stand for the mapping.
    """

    use: str
    about: str = Field(description="what the task asks of which data, and from where, in a line")
    licence: str
    options: dict[str, Any]
    local: dict[str, Any]

    @field_validator("local", mode="before")
    @classmethod
    def _folder_is_data(cls, local: Any) -> Any:
        return {"data": local} if isinstance(local, str) else local


class Filled(NamedTuple):
    """A kind of task, and all options for it: the file's, overruled by the recipe's."""

    kind: str
    options: dict[str, Any]


def ready_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def ready_task(name: str) -> ReadyTask:
    """The ready-made task of that name. Raises DataError if there is none."""
    if name not in ready_names():
        raise DataError(f"no ready-made task '{name}'", do=did_you_mean(name, ready_names()))
    return _read(FOLDER / f"{name}.yaml")


@cache
def _read(path: Path) -> ReadyTask:
    data, lines, problems = read_yaml(path.read_text(encoding="utf-8"))
    if problems:
        raise recipe_error(path.name, lines, problems)
    return ReadyTask.model_validate(data)


def fill_in(use: Use) -> Filled:
    """The kind of task and the options that `use` stands for; of a name that isn't ready-made its own.

    Where there is a data root and the local copy is below it, that is read, unless the recipe itself says where its data
    comes from: another `data`, a `config`, or a `revision` of the Hub.
    """
    if use.name not in ready_names():
        return Filled(use.name, dict(use.options))
    ready = ready_task(use.name)
    elsewhere: dict[str, Any] = {}
    if _reads_local_copy(ready, use.options):
        elsewhere = ready.local | {"data": f"{PREFIX}{ready.local['data']}"}
    # other data have neither the configuration nor the revision of the file's
    dropped = _SOURCE_OPTIONS if elsewhere or "data" in use.options else set()
    options = {name: value for name, value in ready.options.items() if name not in dropped}
    return Filled(ready.use, options | elsewhere | use.options)


def _reads_local_copy(ready: ReadyTask, given: Mapping[str, Any]) -> bool:
    is_pinned_to_hub = not str(given.get("revision") or "sha256:").startswith("sha256:")
    if is_pinned_to_hub or {"data", "config"} & given.keys() or not has_data_root():
        return False
    return below_root(f"{PREFIX}{ready.local['data']}").exists()
