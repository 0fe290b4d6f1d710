"""The environment of a record as pairs of words in groups: machine, software, GPU, settings."""

from __future__ import annotations

from collections.abc import Iterator

from compressbench.core.units import humanize
from compressbench.records.environment import Environment

NOT_READABLE = "not readable"

Pair = tuple[str, str]


def environment_words(found: Environment) -> list[tuple[str, list[Pair]]]:
    """Groups that have anything to say, each with its pairs; what was None is "not readable", never 0."""
    groups = [
        ("Machine", list(_machine(found))),
        ("GPU", list(_gpus(found))),
        ("Software", list(_software(found))),
        ("Settings", list(_settings(found))),
    ]
    return [(name, pairs) for name, pairs in groups if pairs]


def _or_not(value: object) -> str:
    return NOT_READABLE if value is None else str(value)


def _machine(found: Environment) -> Iterator[Pair]:
    yield "processor", _or_not(found.cpu_model)
    yield "architecture", _or_not(found.machine)
    yield "instructions", NOT_READABLE if found.cpu_flags is None else " ".join(found.cpu_flags) or "none of note"
    yield "cores", f"{_or_not(found.num_usable_cores)} usable of {_or_not(found.num_logical_cores)}"
    quota = found.cpu_quota_cores
    yield "CPU quota", "none, or not readable" if quota is None else f"{quota:g} cores"
    yield "memory", NOT_READABLE if found.memory_bytes is None else humanize(found.memory_bytes, "B")
    yield "frequency governor", _or_not(found.cpu_governor)
    frequency = found.cpu_max_frequency_hz
    yield "highest frequency", NOT_READABLE if frequency is None else humanize(frequency, "Hz")
    yield "boost", NOT_READABLE if found.cpu_boost is None else "on" if found.cpu_boost else "off"


def _gpus(found: Environment) -> Iterator[Pair]:
    if found.gpus is None:
        yield "GPUs", "no NVML, so none could be seen"
        return
    for at, gpu in enumerate(found.gpus):
        memory = NOT_READABLE if gpu.memory_bytes is None else humanize(gpu.memory_bytes, "B")
        yield f"GPU {at}", f"{_or_not(gpu.name)}, {memory}, driver {_or_not(gpu.driver)}"
    if not found.gpus:
        yield "GPUs", "none"


def _software(found: Environment) -> Iterator[Pair]:
    yield "operating system", f"{_or_not(found.os)}, {_or_not(found.os_release)}"
    yield "kernel", _or_not(found.kernel)
    yield "Python", found.python
    there = {name: version for name, version in found.packages.items() if version is not None}
    yield from there.items()
    missing = [name for name in found.packages if name not in there]
    if missing:
        yield "not installed", ", ".join(missing)


def _settings(found: Environment) -> Iterator[Pair]:
    yield "device", found.device
    yield "threads", _or_not(found.num_threads)
    unset = [name for name, value in found.speed_variables.items() if value is None]
    yield from ((name, value) for name, value in found.speed_variables.items() if value is not None)
    if unset:
        yield "not set", ", ".join(unset)
    yield "load at the start", _or_not(found.load_average_1min)
    pressure = found.psi_cpu_some_avg10
    yield "waiting for a CPU at the start", NOT_READABLE if pressure is None else f"{pressure:g} % of 10 s"
    yield from ((name, _or_not(value)) for name, value in found.extra.items())
