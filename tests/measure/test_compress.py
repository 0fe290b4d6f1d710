"""Steps in their order, what they cost, and instruments that are always stopped again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from compressbench.core.errors import MeterError, UnsupportedError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Facts, Provenance
from compressbench.core.registry import Resolved
from compressbench.measure.compress import apply_steps
from compressbench.measure.instruments import energy_reading, opened, read_probes
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
    assert meter.calls == ["start", "stop"]
    energy = found.readings[1]
    assert (energy.name, energy.value, energy.kind, energy.low, energy.high) == (
        "compress_energy_j",
        12.0,
        "estimated",
        12.0,
        12.0,
    )


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
    assert dead.calls == []


@pytest.mark.parametrize("error", [ValueError("singular matrix"), KeyboardInterrupt()])
def test_the_window_is_closed_when_a_step_fails_because_the_next_candidate_opens_it_again(error: Exception) -> None:
    meter = ReplayInstrument([{"energy_j": 1.0}])
    with pytest.raises(type(error)):
        apply_steps(Handle(), [use("prune"), use("bad", error=error)], {"energy": meter}, SilentProgress())
    assert meter.calls == ["start", "stop"]


def test_a_step_on_a_device_that_it_does_not_know_is_unsupported() -> None:
    cuda_only = use("kernel", facts=Facts(devices=frozenset({"cuda"})))
    with pytest.raises(UnsupportedError, match=r"'kernel' needs cuda \(got cpu\). Run it on such a machine."):
        apply_steps(Handle(), [cuda_only], {}, SilentProgress())
    assert apply_steps(Handle(device="cuda:1"), [cuda_only], {}, SilentProgress()).handle.done == ("kernel",)


def test_an_uncertain_instrument_gives_an_uncertain_reading() -> None:
    meter = ReplayInstrument([{}])
    meter.provenance = Provenance(kind="measured", source="NVML", boundary="gpu", relative_uncertainty=0.05)
    found = energy_reading("compress_energy_j", {"energy": meter}, {"energy_j": 100.0})
    assert found is not None
    assert (found.low, found.high, found.boundary) == (95.0, 105.0, "gpu")
    meter.provenance = Provenance(kind="estimated", source="TDP", uncertainty_reason="nobody has checked it")
    found = energy_reading("compress_energy_j", {"energy": meter}, {"energy_j": 100.0})
    assert found is not None
    assert (found.low, found.high, found.uncertainty_reason) == (None, None, "nobody has checked it")


@pytest.mark.parametrize(("instruments", "raw"), [({}, {"energy_j": 1.0}), ({"energy": ReplayInstrument([])}, {})])
def test_energy_that_nobody_read_is_no_reading(instruments: dict[str, Any], raw: dict[str, float]) -> None:
    assert energy_reading("compress_energy_j", instruments, raw) is None


class Meter:
    def __init__(self, scope: str, answer: Any) -> None:
        self.scope, self.answer = scope, answer

    def open(self, device: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def read(self, handle: Any, session: Any, batch: Any) -> list[Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer]


def meters(**found: Meter) -> list[Resolved]:
    return [Resolved(name, meter, {}) for name, meter in found.items()]


def test_block_meters_are_open_for_the_length_of_a_run_and_closed_whatever_happens() -> None:
    good = ReplayInstrument([{}])
    asked = meters(
        energy=Meter("block", good), gpu=Meter("block", MeterError("no driver")), latency=Meter("call", None)
    )

    def run_and_fail() -> None:
        with opened(asked, "cpu", SilentProgress()) as found:
            assert found.instruments == {"energy": good}
            assert found.absent == {"gpu": "no driver"}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run_and_fail()
    assert good.calls == ["close"]


def test_a_probe_that_fails_leaves_a_reason() -> None:
    asked = meters(size=Meter("model", "reading"), memory=Meter("model", MeterError("no events")), e=Meter("block", 0))
    session: Any = None
    expected: Any = (["reading"], {"memory": "no events"})
    assert read_probes(asked, None, session, {}) == expected
