"""Which meters say something of a server: made-up meters and runtimes."""

from __future__ import annotations

import pytest

from compressbench.measure.host_energy import ELSEWHERE
from compressbench.measure.instruments import Opened
from compressbench.measure.remote import needs_weights, only_what_sees
from compressbench.records.idle_power import OF_THIS_PROCESS
from compressbench.runtimes.endpoint import Endpoint
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing.fakes import ReplayInstrument

HERE, THERE = Endpoint(url="http://127.0.0.1:8000", model="m"), Endpoint(url="http://gpu-box:8000", model="m")


def opened() -> Opened:
    machine, process = (ReplayInstrument([{"energy_j": 1.0}]) for _ in range(2))
    how = process.provenances["energy_j"].model_copy(update={"boundary": f"cpu ({OF_THIS_PROCESS})"})
    process.provenances["energy_j"] = how
    return Opened({"machine": machine, "process": process}, {"gone": "no counter"})


def test_without_a_server_all_meters_stay() -> None:
    found = opened()
    assert only_what_sees(found, [TorchEager()]) is found


@pytest.mark.parametrize("runtimes", [[HERE], [TorchEager(), HERE]])
def test_of_a_server_here_only_meters_of_the_machine_stay(runtimes: list[object]) -> None:
    kept = only_what_sees(opened(), runtimes)
    assert set(kept.instruments) == {"machine"}
    assert set(kept.absent) == {"process", "gone"}


@pytest.mark.parametrize("runtimes", [[THERE], [TorchEager(), THERE], [HERE, THERE]])
def test_of_a_server_elsewhere_none_stays(runtimes: list[object]) -> None:
    kept = only_what_sees(opened(), runtimes)
    assert kept.instruments == {}
    assert kept.absent == {"machine": ELSEWHERE, "process": ELSEWHERE, "gone": "no counter"}


def test_weights_are_needed_if_any_arm_runs_here() -> None:
    assert not needs_weights([HERE, THERE])
    assert needs_weights([HERE, TorchEager()])
