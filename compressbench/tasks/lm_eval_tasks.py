"""Tasks of lm-evaluation-harness: where one is defined, and what it measures.

A definition is found by its name in the text of the YAML files, and read without its data and its functions, so that a
recipe with any of the 13,000 tasks is checked in about a second; the harness's own index takes six.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from compressbench.core.errors import (
    DataError,
    MissingDependencyError,
    UnknownNameError,
    UnsupportedError,
)
from compressbench.core.files import file_sha256

_TASK, _GROUP, _CLASS = (
    re.compile(rb"^[\"']?" + key + rb"[\"']?:[ \t]*[\"']?([^\"'\s\[#]+)", re.MULTILINE)
    for key in (b"task", b"group", b"class")
)
_TAG = re.compile(rb"^[\"']?tag[\"']?:", re.MULTILINE)
_UNREAD = ("doc_to_image", "doc_to_audio")


@dataclass(frozen=True)
class Metric:
    """`aggregation` is the harness's name of a function, or "its own" for one that the task brings along."""

    name: str
    filter: str
    aggregation: str
    is_higher_better: bool

    @property
    def key(self) -> str:
        """The name in the harness's results, such as `acc_norm,none`."""
        return f"{self.name},{self.filter}"


@dataclass(frozen=True)
class Definition:
    """What a YAML file says of a task. A task `is_open` if its code may give metrics that the file doesn't name."""

    name: str
    path: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, Metric]

    @property
    def is_open(self) -> bool:
        named = [str(each.get("metric")) for each in self.config.get("metric_list") or ()]
        return bool({"process_results", "class"} & self.config.keys()) or any(_is_function(name) for name in named)

    @property
    def split(self) -> str:
        return str(self.config.get("test_split") or self.config.get("validation_split") or "test")

    @property
    def version(self) -> str:
        return str((self.config.get("metadata") or {}).get("version", ""))

    @property
    def sha256(self) -> str:
        return file_sha256(self.path)

    def metric(self, key: str) -> Metric:
        """The metric of that name; of an open task also one that the file doesn't name, as the harness takes it: a mean."""
        if key in self.metrics:
            return self.metrics[key]
        name, _, filter_ = key.rpartition(",")
        if not self.is_open or not name:
            raise UnknownNameError(
                f"the task '{self.name}' has no metric '{key}'", do=f"It has {', '.join(self.metrics) or 'others'}."
            )
        return Metric(name, filter_, "mean", True)


def require_harness() -> Path:
    """The folder with the harness's tasks. Raises MissingDependencyError if it isn't installed; imports nothing."""
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "the task 'lm-eval' needs lm-evaluation-harness", do='pip install "compressbench[lm-eval]"'
        )
    return Path(spec.origin).parent / "tasks"


def find_definition(name: str, include_path: str | None) -> Definition:
    """Of a task in `include_path`, or else of the harness's own.

    Raises UnknownNameError with the nearest name, or with the members of what is a group of tasks; DataError for a folder
    or file that can't be read; UnsupportedError for a task that can't be asked here.
    """
    builtin = require_harness()
    for tasks, groups in ([_names_in(_folder(include_path))] if include_path else []) + [_names_in_harness(builtin)]:
        if name in groups:
            raise _is_a_group(name, _members(groups[name]))
        if name in tasks:
            return _definition(name, tasks[name])
    raise _unknown(name, builtin, include_path)


def _folder(include_path: str) -> Path:
    folder = Path(include_path).expanduser()
    if not folder.is_dir():
        raise DataError("no such folder of task files", where="include_path", got=include_path)
    return folder


_Found = tuple[dict[str, Path], dict[str, Path]]


@lru_cache(maxsize=1)
def _names_in_harness(folder: Path) -> _Found:
    return _names_in(folder)


def _names_in(folder: Path) -> _Found:
    """Tasks and groups by name; the first file counts, as for the harness."""
    tasks: dict[str, Path] = {}
    groups: dict[str, Path] = {}
    for path in sorted(folder.glob("**/*.yaml")):
        text = path.read_bytes()
        group, task = _GROUP.search(text), _TASK.search(text)
        if group is not None and not _CLASS.search(text):
            groups.setdefault(group[1].decode(), path)
        elif task is not None:
            tasks.setdefault(task[1].decode(), path)
    return tasks, groups


def _members(path: Path) -> list[str]:
    listed = _read(path).get("task") or ()
    return [each if isinstance(each, str) else str(each.get("task") or each.get("group")) for each in listed]


def _is_a_group(name: str, members: Iterable[str]) -> UnknownNameError:
    return UnknownNameError(
        f"'{name}' is a group of tasks, and a score belongs to one task",
        do=f"List them one by one, such as {', '.join(islice(members, 12))}.",
    )


def _unknown(name: str, builtin: Path, include_path: str | None) -> UnknownNameError:
    if tagged := _tagged(name, builtin):
        return _is_a_group(name, tagged)
    known = {**_names_in_harness(builtin)[0], **(_names_in(_folder(include_path))[0] if include_path else {})}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.55)
    do = f"Did you mean '{near[0]}'?" if near else "lm-eval ls tasks lists them."
    return UnknownNameError(f"lm-evaluation-harness has no task '{name}'", do=do)


def _tagged(name: str, folder: Path) -> list[str]:
    """Tasks whose own file has that tag; more may get it from a file that they include."""
    word = rb"(?<![\w-])" + re.escape(name.encode()) + rb"(?![\w-])"
    tag = re.compile(
        rb"^[\"']?tag[\"']?:.*" + word + rb"|^[ \t]*-[ \t]*[\"']?" + word + rb"[\"']?[ \t]*$", re.MULTILINE
    )
    texts = (path.read_bytes() for path in sorted(folder.glob("**/*.yaml")))
    tagged = (text for text in texts if _TAG.search(text) and tag.search(text))
    return [task[1].decode() for text in tagged if (task := _TASK.search(text))]


def _read(path: Path, *, with_functions: bool = False) -> dict[str, Any]:
    """The file with what it includes; a `!function` is its path as text, if it isn't to be imported."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return dict(load_yaml(path, resolve_func=with_functions))
    except Exception as error:  # the file names code, which may raise anything
        raise DataError("the task's file can't be read", where=str(path), got=short_error(error)) from error


def _definition(name: str, path: Path) -> Definition:
    config = _read(path)
    if config.get("unsafe_code"):
        raise UnsupportedError(f"the task '{name}' runs code that the model wrote, which is never done here")
    if any(config.get(each) for each in _UNREAD):
        raise UnsupportedError(f"the task '{name}' shows images or sounds, which a language model can't read")
    filters = [str(each["name"]) for each in config.get("filter_list") or ()] or ["none"]
    metrics = [Metric(of, filter_, how, is_higher) for filter_ in filters for of, how, is_higher in _measured(config)]
    return Definition(name, path, config, {metric.key: metric for metric in metrics})


def _measured(config: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Name, aggregation and direction of every metric that the file names, or else of those that its kind has."""
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, is_higher_better

    if "class" in config:
        return []
    listed = config.get("metric_list") or [
        {"metric": name} for name in DEFAULT_METRIC_REGISTRY.get(config.get("output_type"), ())
    ]
    found = []
    for each in listed:
        name = _function_name(str(each["metric"]))
        given = each.get("higher_is_better")
        is_higher = is_higher_better(name) if given is None else given
        found.append((name, _aggregation_name(name, each.get("aggregation")), is_higher is not False))
    return found


def _is_function(text: str) -> bool:
    return "/" in text or "\\" in text


def _function_name(text: str) -> str:
    return text.rpartition(".")[2] if _is_function(text) else text


def _aggregation_name(metric: str, given: str | None) -> str:
    from lm_eval.api.metrics import mean
    from lm_eval.api.registry import AGGREGATION_REGISTRY, get_metric_aggregation

    if given is not None:
        return "its own" if _is_function(str(given)) else str(given)
    default = get_metric_aggregation(metric) or mean
    return next((name for name, function in AGGREGATION_REGISTRY.items() if function is default), "mean")


def aggregate(definition: Definition, metric: Metric, items: list[Any]) -> float:
    """What the harness's or the task's own function makes of the items."""
    from lm_eval.api.registry import get_aggregation

    if metric.aggregation != "its own":
        return float(get_aggregation(metric.aggregation)(items))
    listed = _read(definition.path, with_functions=True)["metric_list"]
    names = [name for name, *_ in _measured(definition.config)]
    return float(listed[names.index(metric.name)]["aggregation"](items))


def short_error(error: Exception) -> str:
    """Its class and message on one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:297] + "..."
