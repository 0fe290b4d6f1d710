"""The findings of `doctor`, one function per room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from compressbench.core import registry
from compressbench.core.errors import CompressbenchError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class Finding(NamedTuple):
    room: str
    name: str
    is_usable: bool
    detail: str
    do: str = ""


def check_up() -> list[Finding]:
    """Look at devices, meters, runtimes, methods, tasks and embedded models. Imports torch; opens every meter."""
    return [*_devices(), *_meters(), *_runtimes(), *_methods(), *_tasks(), *_embedded()]


def _devices() -> Iterator[Finding]:
    import torch

    from compressbench.records.environment import read_environment
    from compressbench.runtimes.device import usable_cores

    environment = read_environment(device="cpu", num_threads=None)
    flags = ", ".join(environment.cpu_flags or ()) or "no flags readable"
    yield Finding("devices", "cpu", True, f"{environment.cpu_model}, {usable_cores()} usable cores; {flags}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Finding("devices", f"cuda:{index}", True, torch.cuda.get_device_name(index))
    else:
        build = "this build of torch has no CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        yield Finding("devices", "cuda", False, build)


def _meters() -> Iterator[Finding]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in registry.meters.names():
        try:
            made = registry.meters.resolve(name)
            options = _required(made)
            if options:
                do = f"Give them in the recipe; compressbench list meters says what {name} takes."
                yield Finding("meters", name, False, f"needs {', '.join(options)}", do)
                continue
            meter = made()
            if meter.scope != "block":
                yield Finding("meters", name, True, "")
                continue
            instrument = meter.open(device)
            provenance = next(iter(instrument.provenances.values()))
            instrument.close()
            yield Finding("meters", name, True, f"{provenance.kind}: {provenance.source}")
        except CompressbenchError as error:
            yield Finding("meters", name, False, error.what, error.do)


def _required(made: object) -> list[str]:
    """The options without which it can't be made, where it declares its options."""
    fields: Mapping[str, FieldInfo] = getattr(made, "model_fields", {})
    return [name for name, field in fields.items() if field.is_required()]


def _runtimes() -> Iterator[Finding]:
    for name in registry.runtimes.names():
        yield from _needs("runtimes", name, registry.runtimes, "requires")


def _methods() -> Iterator[Finding]:
    for name in registry.methods.names():
        yield from _elsewhere(name) or _needs("methods", name, registry.methods, "facts")


def _elsewhere(name: str) -> list[Finding]:
    """Whether the tool behind a method that runs in an environment of its own can be found; empty for other methods."""
    from compressbench.methods.foreign.process import find_python

    try:
        method = registry.methods.resolve(name)
        if not getattr(method.facts, "runs_elsewhere", ()):
            return []
        find_python(method.tool)
    except CompressbenchError as error:
        return [Finding("methods", name, False, error.what, error.do)]
    return [Finding("methods", name, True, "in an environment of its own")]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _tasks() -> Iterator[Finding]:
    for name in registry.tasks.names():
        yield from _needs("tasks", name, registry.tasks, "")


def _needs(room: str, name: str, table: registry.Registry, attribute: str) -> Iterator[Finding]:
    try:
        thing = table.resolve(name)
    except CompressbenchError as error:
        yield Finding(room, name, False, error.what, error.do)
        return
    facts = getattr(thing, attribute, ()) if attribute else ()
    requires = facts if isinstance(facts, tuple) else facts.requires
    missing = registry.missing_distributions(requires)
    devices = getattr(facts, "devices", None)
    if devices == frozenset({"cuda"}) and not _has_cuda():
        yield Finding(room, name, False, "needs a CUDA device")
    elif missing:
        yield Finding(room, name, False, f"lacks {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Finding(room, name, True, "")


def _embedded() -> Iterator[Finding]:
    from compressbench.models.config import EMBEDDED, encoder_folder

    for name in EMBEDDED:
        try:
            if "minilm" in name:  # their encoder is a distribution of its own
                encoder_folder()
            yield Finding("models", f"embedded:{name}", True, "")
        except CompressbenchError as error:
            yield Finding("models", f"embedded:{name}", False, error.what, error.do)
