"""Cells whose model runs in a server: what this process can't know of it is absent, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compressbench.core.deploying import facts_of
from compressbench.core.registry import Resolved
from compressbench.measure.host_energy import ELSEWHERE
from compressbench.measure.instruments import Opened
from compressbench.records.idle_power import OF_THIS_PROCESS
from compressbench.records.limits import Work

NOT_HERE = "not known: the model runs in a server of its own"


def is_remote(runtime: Any) -> bool:
    return facts_of(runtime).is_remote


def needs_weights(runtimes: Iterable[Any]) -> bool:
    """Whether any of these runs the model in this process."""
    return not all(map(is_remote, runtimes))


def absent_probes(meters: Iterable[Resolved]) -> dict[str, str]:
    return {meter.name: NOT_HERE for meter in meters if meter.value.scope == "model"}


def unknown_work() -> Work:
    """What a call asks for could be counted, but not what the server's machine can do."""
    return Work(reason=NOT_HERE)


def only_what_sees(opened: Opened, runtimes: Iterable[Any]) -> Opened:
    """Without meters that don't see what one of these arms does: of a server elsewhere none does, of one here only those
    that read the machine and not this process. Both arms are read by the same meters or by none.
    """
    remote = [runtime for runtime in runtimes if is_remote(runtime)]
    if not remote:
        return opened
    is_here = all(getattr(runtime, "is_here", False) for runtime in remote)
    kept, absent = dict(opened.instruments), dict(opened.absent)
    for name, instrument in opened.instruments.items():
        boundaries = {how.boundary for how in instrument.provenances.values()}
        if not is_here:
            absent[name] = ELSEWHERE
        elif any(OF_THIS_PROCESS in boundary for boundary in boundaries):
            absent[name] = "it is an estimate of this process, and the server is another"
        else:
            continue
        del kept[name]
    return Opened(kept, absent)
