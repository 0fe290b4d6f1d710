"""Steps in their order, what they cost, and instruments that are always stopped again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from compressbench.core.errors import MeterError, UnsupportedError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Facts
from compressbench.core.registry import Resolved
from compressbench.measure.compress import apply_steps
from compressbench.testing import BrokenInstrument, ReplayInstrument


@dataclass(frozen=True)
class Handle:
    done: tuple[str, ...] = ()
    device: str = "cpu"
    notes: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=lambda: {"num_hidden_layers": 4})


@dataclass
class Fake:
    word: str
    facts: Facts = field(default_factory=Facts)
    error: Exception | None = None

    def check_model(self, config: dict[str, Any]) -> None:
        assert config["num_hidden_layers"] == 4

    def apply(self, handle: Handle) -> Handle:
        if self.error is not None:
            raise self.error
        return replace(handle, done=(*handle.done, self.word), notes={"last": self.word})


def use(word: str, **given: Any) -> Resolved:
    return Resolved(word, Fake(word, **given), {"sparsity": 0.5})


def test_steps_run_in_their_order_and_say_what_they_did() -> None:
    found = apply_steps(Handle(), [use("prune"), use("quantize")], {}, SilentProgress())
    assert found.handle.done == ("prune", "quantize")
    assert [(step.use, step.options, step.notes) for step in found.steps] == [
        ("prune", {"sparsity": 0.5}, {"last": "prune"}),
        ("quantize", {"sparsity": 0.5}, {"last": "quantize"}),
    ]
    seconds = found.readings[0]
    assert (seconds.name, seconds.kind, seconds.uncertainty_reason) == ("compress_seconds", "measured", "done once")
    assert seconds.value == pytest.approx(sum(step.seconds for step in found.steps))


def test_no_steps_cost_nothing_and_start_no_meter() -> None:
    meter, handle = ReplayInstrument([{"energy_j": 1.0}]), Handle()
    found = apply_steps(handle, [], {"energy": meter}, SilentProgress())
    assert found == (handle, (), [], {})
    assert meter.calls == []


def test_the_energy_of_all_steps_is_one_window() -> None:
    meter = ReplayInstrument([{"energy_j": 12.0}], kind="estimated")
    found = apply_steps(Handle(), [use("prune"), use("quantize")], {"energy": meter}, SilentProgress())
    assert meter.calls == ["collect", "start", "stop", "collect"]
    energy = found.readings[1]
    assert (energy.name, energy.value, energy.kind, energy.low, energy.high) == (
        "compress_energy_j",
        12.0,
        "estimated",
        12.0,
        12.0,
    )
    assert (energy.boundary, energy.tick_s) == ("device", 0.001)
    assert energy.window_s is not None
    assert energy.window_s >= sum(step.seconds for step in found.steps)


def test_the_energy_may_come_from_a_meter_of_any_name() -> None:
    meter = ReplayInstrument([{"energy_j": 12.0}])
    found = apply_steps(
        Handle(), [use("prune")], {"dram": ReplayInstrument([{"dram_j": 1.0}]), "rapl": meter}, SilentProgress()
    )
    assert [reading.value for reading in found.readings if reading.name == "compress_energy_j"] == [12.0]


@pytest.mark.parametrize(
    ("window", "reason"),
    [("counter_reset: 5 then 3", "counter_reset: 5 then 3"), ({"energy_j": 0.0}, "below resolution: 0 J")],
)
def test_a_void_window_leaves_its_reason_and_no_number(window: Any, reason: str) -> None:
    meter = ReplayInstrument([window])
    found = apply_steps(Handle(), [use("prune")], {"energy": meter}, SilentProgress())
    assert [reading.name for reading in found.readings] == ["compress_seconds", "compress_peak_memory_bytes"]
    assert found.absent == {"compress_energy": reason}


def test_what_an_interrupted_measurement_left_marked_is_not_taken_for_this_window() -> None:
    meter = ReplayInstrument([{"energy_j": 99.0}, {"energy_j": 12.0}])
    meter.start()
    meter.stop()
    found = apply_steps(Handle(), [use("prune")], {"energy": meter}, SilentProgress())
    assert found.readings[1].value == 12.0


def test_a_meter_that_fails_leaves_a_reason_and_no_number() -> None:
    found = apply_steps(Handle(), [use("prune")], {"energy": BrokenInstrument(0, {})}, SilentProgress())
    assert [reading.name for reading in found.readings] == ["compress_seconds", "compress_peak_memory_bytes"]
    assert found.absent == {"compress_energy": "the instrument was unplugged"}


def test_a_meter_that_cannot_start_leaves_a_reason_too() -> None:
    class Dead(ReplayInstrument):
        def start(self) -> None:
            raise MeterError("permission denied")

    dead = Dead([{"energy_j": 1.0}])
    assert apply_steps(Handle(), [use("prune")], {"energy": dead}, SilentProgress()).absent == {
        "compress_energy": "permission denied"
    }
    assert dead.calls == ["collect"]


@pytest.mark.parametrize("error", [ValueError("singular matrix"), KeyboardInterrupt()])
def test_the_window_is_closed_when_a_step_fails_because_the_next_candidate_opens_it_again(error: Exception) -> None:
    meter = ReplayInstrument([{"energy_j": 1.0}])
    with pytest.raises(type(error)):
        apply_steps(Handle(), [use("prune"), use("bad", error=error)], {"energy": meter}, SilentProgress())
    assert meter.calls == ["collect", "start", "stop", "collect"]


def test_a_step_on_a_device_that_it_does_not_know_is_unsupported() -> None:
    cuda_only = use("kernel", facts=Facts(devices=frozenset({"cuda"})))
    with pytest.raises(UnsupportedError, match=r"'kernel' needs cuda \(got cpu\). Run it on such a machine."):
        apply_steps(Handle(), [cuda_only], {}, SilentProgress())
    assert apply_steps(Handle(device="cuda:1"), [cuda_only], {}, SilentProgress()).handle.done == ("kernel",)
