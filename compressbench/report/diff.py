"""What differs between two recipes, or between the conditions and environments of two records.

Recipes are compared as they are understood: with every default written out, candidates by name, meters and tasks by what
they are, so that a moved line is no difference (but another order is said, for it is another content hash).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from compressbench.core.errors import RecipeError, RecordError
from compressbench.core.spec import content_hash
from compressbench.recipe.load import load_recipe, parse_recipe
from compressbench.recipe.problems import join
from compressbench.recipe.schema import canonical
from compressbench.records.comparability import comparability_key, conditions_of, differences
from compressbench.records.environment import Environment
from compressbench.records.record import Record
from compressbench.records.store import read_record
from compressbench.report.beside import baseline_beside
from compressbench.report.catalog import open_catalog

LOAD = "load"
_SOFTWARE = ("python", "packages")
_SETTINGS = ("num_threads", "speed_variables", "extra")
_LOAD = ("load_average_1min", "psi_cpu_some_avg10")


class Change(NamedTuple):
    """What stands at a key path here and there; one of `before` and `after` is None where `kind` is added or removed."""

    where: str
    kind: str
    before: Any
    after: Any


class Section(NamedTuple):
    name: str
    changes: tuple[Change, ...]


class Diff(NamedTuple):
    """`facts` are sentences; `is_rankable` is whether two records may stand in one ranking, None where that isn't asked."""

    ours: str
    theirs: str
    facts: tuple[str, ...]
    is_rankable: bool | None
    sections: tuple[Section, ...]

    @property
    def is_equal(self) -> bool:
        """How busy the machines were is said, and is no difference: it is never the same twice."""
        return not any(section.changes for section in self.sections if section.name != LOAD)


class _Thing(NamedTuple):
    """A recipe, or a record with its recipe and the baseline of its run."""

    label: str
    recipe: Mapping[str, Any]
    record: Record | None = None
    baseline: Record | None = None


def diff(ours: Path, theirs: Path) -> Diff:
    """Of two recipes or of two records; of a recipe and a record: of the recipes. A folder is its newest run's baseline.

    Raises RecipeError or RecordError for what is neither.
    """
    one, other = _read(ours), _read(theirs)
    recipes = Section("recipe", tuple(changes(one.recipe, other.recipe)))
    hashes = [content_hash(dict(each.recipe)) for each in (one, other)]
    same = "the same" if hashes[0] == hashes[1] else f"not the same: {hashes[0]} and {hashes[1]}"
    facts = [f"The recipes' content is {same}."]
    if one.record is None or other.record is None:
        return Diff(one.label, other.label, tuple(facts), None, (recipes,))
    conditions = [conditions_of(record, baseline) for _, _, record, baseline in (one, other) if record is not None]
    is_rankable = comparability_key(conditions[0]) == comparability_key(conditions[1])
    differing = differences(*conditions)
    why = f": {len(differing)} conditions differ" if differing else ""
    facts.insert(0, f"Their numbers {'must not' if differing else 'may'} be ranked together{why}.")
    found = [
        Section("conditions", tuple(_change(name, *pair) for name, pair in differing.items())),
        *_environments(one.record.environment, other.record.environment),
        Section("model", tuple(changes(_model(one.record), _model(other.record)))),
        recipes,
    ]
    return Diff(one.label, other.label, tuple(facts), is_rankable, tuple(found))


def _read(path: Path) -> _Thing:
    if path.is_dir():
        path = _newest_baseline(path)
    if path.suffix.lower() != ".json":
        return _Thing(str(path), canonical(load_recipe(path).recipe))
    record = read_record(path)
    beside = baseline_beside(path, record)
    return _Thing(str(path), _recipe_of(record), record, None if beside is None else read_record(beside))


def _newest_baseline(folder: Path) -> Path:
    catalog = open_catalog([folder])
    baselines = [each for each in catalog.contenders() if each.is_baseline]
    if not baselines:
        raise RecordError("no baseline's record is there", where=str(folder), do="Name the record's file.")
    return catalog.path(max(baselines, key=lambda each: each.run_id).at)


def _recipe_of(record: Record) -> Mapping[str, Any]:
    """With the defaults of today; as it was written where it isn't understood any more."""
    try:
        return canonical(parse_recipe(record.recipe.text).recipe)
    except RecipeError:
        return record.recipe.text


def _model(record: Record) -> dict[str, Any]:
    return {
        "candidate": record.candidate,
        "model": None if record.model is None else record.model.model_dump(mode="json"),
        "steps": [{"use": step.use, **step.options} for step in record.steps],
        "runtime": dict(record.runtime),
    }


def _environments(ours: Environment, theirs: Environment) -> list[Section]:
    """Machine, software, settings, and how busy it was."""
    one, other = (each.model_dump(mode="json") for each in (ours, theirs))
    for each in (one, other):
        each["cpu_flags"] = None if each["cpu_flags"] is None else " ".join(each["cpu_flags"])
    machine = tuple(name for name in one if name not in (*_SOFTWARE, *_SETTINGS, *_LOAD))
    groups = {"machine": machine, "software": _SOFTWARE, "settings": _SETTINGS, LOAD: _LOAD}
    return [
        Section(group, tuple(changes({n: one[n] for n in names}, {n: other[n] for n in names})))
        for group, names in groups.items()
    ]


def changes(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: str = "") -> Iterator[Change]:
    """By key path; None is no value, so that a key with it equals one that isn't there."""
    for key in dict.fromkeys([*ours, *theirs]):
        yield from _between(join(at, key), key, ours.get(key), theirs.get(key))


def _between(where: str, key: str, ours: Any, theirs: Any) -> Iterator[Change]:
    if ours == theirs and type(ours) is type(theirs):
        return
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours.get("use") == theirs.get("use"):
        yield from changes(ours, theirs, where)
    elif isinstance(ours, list) and isinstance(theirs, list) and any(isinstance(e, Mapping) for e in [*ours, *theirs]):
        yield from _lists(where, key, ours, theirs)
    else:
        yield _change(where, ours, theirs)


def _change(where: str, ours: Any, theirs: Any) -> Change:
    is_here, is_there = (each not in (None, "") for each in (ours, theirs))
    return Change(where, "changed" if is_here and is_there else "removed" if is_here else "added", ours, theirs)


def _lists(where: str, key: str, ours: Sequence[Any], theirs: Sequence[Any]) -> Iterator[Change]:
    """Entries of the same name, wherever they stand; then their order, if those that both have stand in another one."""
    one, other = _by_name(key, ours), _by_name(key, theirs)
    for name in dict.fromkeys([*one, *other]):
        yield from _between(join(where, name), "", one.get(name), other.get(name))
    orders = [[str(name) for name in names if name in one and name in other] for names in (one, other)]
    if orders[0] != orders[1]:
        yield Change(f"{where} (order)", "changed", orders[0], orders[1])


def _by_name(key: str, entries: Sequence[Any]) -> dict[Any, Any]:
    """Candidates by name, meters and tasks by use and data; anything else, and what isn't unique, by place."""
    names: list[Any] = list(range(len(entries)))
    if all(isinstance(each, Mapping) for each in entries):
        if key == "candidates":
            names = [each.get("name") for each in entries]
        elif key in ("tasks", "meters"):
            names = [" ".join(str(each[part]) for part in ("use", "data") if part in each) for each in entries]
    if len(set(names)) < len(names):
        names = list(range(len(entries)))
    return dict(zip(names, entries, strict=True))
