"""Names that no recipe, run or data set can have, whoever wrote them: a row with one of them is never ranked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache

from compressbench.core.names import SAFE_NAME, one_line
from compressbench.records.environment import Environment
from compressbench.records.record import Record
from compressbench.records.score import Score

# as long as a recipe lets a model's id be
_LONGEST = 512
_SHOWN = 40
# tags, quotes that end an attribute, code in Markdown, Jinja and shell expansions, links, LaTeX commands
_MARKUP = re.compile(r'[<>|`"]|\{\{|\{%|\$\{|\]\(|\\\w+\{')
_FORMULA = re.compile(r"[=@]|[+-]\W*\d")
_SCRIPT = re.compile(r"\s*(?:javascript|vbscript|data\s*:\s*text)\s*:?", re.IGNORECASE)
# of harnesses, such as "exact_match,strict-match" and "pass@1"
_METRIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.,:@#/+%()-]{0,127}")
_FILE = re.compile(r"[A-Za-z0-9_-][^/\\\x00-\x1f]{0,250}\.parquet")


def implausible_names(record: Record) -> tuple[str, ...]:
    """Why the record's names can't be those of a run; none for a sound record."""
    return (
        *_of_recipe(record),
        *_of_model(record),
        *_of_scores(record.scores),
        *_of_machine(record.device, record.environment),
    )


def _of_recipe(record: Record) -> Iterator[str]:
    named = [("recipe", record.recipe.name), ("candidate", record.candidate), ("key", record.key)]
    named += [("recipe's hash", record.recipe.hash), ("run", record.run_id)]
    for what, name in (*named, *(("step", step.use) for step in record.steps)):
        if not SAFE_NAME.fullmatch(name):
            yield f"{_shown(name)} is no name that a {what} can have"
    if (record.role == "baseline") != (record.candidate == "baseline") or record.candidate.lower() == "control":
        yield f"a {record.role} can't be called {_shown(record.candidate)}"
    if not _is_time(record.created_utc):
        yield f"{_shown(record.created_utc)} is no time at which a record can have been made"
    if record.artefact is not None and not _is_inside(record.artefact.folder):
        yield f"the artefact lies outside the record's folder: {_shown(record.artefact.folder)}"


def _of_model(record: Record) -> Iterator[str]:
    model, asked = record.model, record.recipe.text["model"]
    named = [("model", asked["id"])]
    if model is not None:
        named += [("model", model.id), ("revision", model.revision), ("architecture", model.architecture)]
        named += [("data type", model.dtype)]
    yield from _not_plain(named)
    for key in ("tasks", "meters"):
        yield from _not_names("task" if key == "tasks" else "meter", (use["use"] for use in record.recipe.text[key]))
    runtime = record.runtime.get("use", "torch")
    yield from _not_names("runtime", [runtime if isinstance(runtime, str) else repr(runtime)])


def _of_scores(scores: Iterable[Score]) -> Iterator[str]:
    for score in scores:
        yield from _not_names("task", [score.task])
        if not _METRIC.fullmatch(score.metric):
            yield f"{_shown(score.metric)} is no name that a metric can have"
        named = [("task", score.label), ("data set", score.data), ("split", score.split)]
        named += [("revision", score.data_revision), ("stratum", score.stratum)]
        yield from _not_plain([*named, *(("stratum", name) for name in score.strata)])
        for file in filter(None, (score.samples_file, score.outputs_file)):
            if not _FILE.fullmatch(file) or not file.isprintable():
                yield f"the rows of {_shown(score.task)} are in no file beside the record: {_shown(file)}"


def _of_machine(device: str, found: Environment) -> Iterator[str]:
    """The texts that stand in tables and in comparability keys. An empty or unknown one is no fault."""
    texts = [
        device,
        found.device,
        found.os,
        found.os_release,
        found.kernel,
        found.machine,
        found.python,
        found.cpu_model,
    ]
    texts += [gpu.name for gpu in found.gpus or ()]
    texts += [text for pair in (found.packages or {}).items() for text in pair]
    yield from _not_plain([("machine", text or "") for text in texts])
    if not "".join(found.cpu_flags or ()).isprintable():
        yield "the processor's flags hold signs that can't be printed"


def _not_names(what: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{_shown(name)} is no name that a {what} can have" for name in names if not SAFE_NAME.fullmatch(name))


def _not_plain(named: Iterable[tuple[str, str]]) -> Iterator[str]:
    for what, text in named:
        if text and (why := _why_not_plain(text)):
            yield f"the {what} {_shown(text)} {why}"


# equal names stand in thousands of records
@lru_cache(maxsize=4096)
def _why_not_plain(text: str) -> str:
    if len(text) > _LONGEST:
        return f"has {len(text)} letters"
    if not text.isprintable():
        return "holds signs that can't be printed or turn the direction of writing"
    if _MARKUP.search(text):
        return "reads as markup"
    if _FORMULA.match(text):
        return "begins like a formula"
    return "reads as a script" if _SCRIPT.match(text) else ""


def _is_time(text: str) -> bool:
    try:
        return len(text) < _SHOWN and bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def _is_inside(folder: str) -> bool:
    return folder.isprintable() and not folder.startswith(("/", "\\")) and ".." not in folder and ":" not in folder


def _shown(text: str) -> str:
    line = one_line(text)
    return f"'{line}'" if len(line) <= _SHOWN else f"'{line[:_SHOWN]}…'"
