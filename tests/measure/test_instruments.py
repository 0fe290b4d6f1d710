"""Opening meters, requiring energy before anything is measured, and joules as a reading."""

from __future__ import annotations

import math
from typing import Any

import pytest

from compressbench.core.errors import MeterError, MissingMeasurementError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Provenance
from compressbench.core.registry import Resolved
from compressbench.measure.instruments import (
    Opened,
    energy_reading,
    forget_windows,
    opened,
    read_probes,
    require_energy,
)
from compressbench.measure.working import WindowsOfBlock
from compressbench.testing import ReplayInstrument


class Meter:
    def __init__(self, scope: str, answer: Any) -> None:
        self.scope, self.answer = scope, answer

    def open(self, device: str) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def read(self, handle: Any, session: Any, batch: Any, output_tokens: int | None = None) -> list[Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer, output_tokens]


class Listener(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def meters(**found: Meter) -> list[Resolved]:
    return [Resolved(name, meter, {}) for name, meter in found.items()]


def instrument(kind: Any = "measured", notes: tuple[str, ...] = (), name: str = "energy_j") -> ReplayInstrument:
    made = ReplayInstrument([{name: 1.0}], kind=kind)
    made.provenances = {name: how.model_copy(update={"notes": notes}) for name, how in made.provenances.items()}
    return made


def test_block_meters_are_open_for_the_length_of_a_run_and_closed_whatever_happens() -> None:
    good = ReplayInstrument([{}])
    asked = meters(
        energy=Meter("block", good), gpu=Meter("block", MeterError("no driver")), latency=Meter("call", None)
    )

    def run_and_fail() -> None:
        with opened(asked, "cpu", SilentProgress()) as found:
            assert found.instruments["energy"] is good
            assert set(found.instruments) == {"energy"}
            assert found.absent == {"gpu": "no driver"}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run_and_fail()
    assert good.calls == ["close"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "PermissionError: [Errno 13] Permission denied"),
        (AttributeError("no nvmlInit"), "AttributeError: no nvmlInit"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_whatever_a_meter_raises_when_it_is_opened_costs_its_numbers_alone(error: Exception, reason: str) -> None:
    good = ReplayInstrument([{}])
    asked = meters(first=Meter("block", error), second=Meter("block", good))
    with opened(asked, "cpu", SilentProgress()) as found:
        assert (found.absent, list(found.instruments)) == ({"first": reason}, ["second"])


def test_an_instrument_that_can_not_say_how_it_reads_is_absent_and_closed() -> None:
    class Mute(ReplayInstrument):
        def __init__(self) -> None:
            self.calls = []

    mute, good = Mute(), instrument()
    asked = meters(mute=Meter("block", mute), energy=Meter("block", good))
    with opened(asked, "cpu", SilentProgress()) as found:
        assert list(found.instruments) == ["energy"]
        assert "provenances" in found.absent["mute"]
    assert mute.calls == ["close"]


def test_whatever_a_meter_raises_when_it_is_closed_is_said_and_does_no_harm() -> None:
    class Stuck(ReplayInstrument):
        def close(self) -> None:
            raise OSError(5, "Input/output error")

    listener = Listener()
    with opened(meters(energy=Meter("block", Stuck([{}]))), "cpu", listener):
        pass
    assert listener.lines == ["the meter 'energy' could not be closed: OSError: [Errno 5] Input/output error"]


def test_a_meter_that_can_not_be_closed_says_so_and_the_others_are_closed() -> None:
    class Stuck(ReplayInstrument):
        def close(self) -> None:
            raise MeterError("the device is gone")

    good, listener = ReplayInstrument([{}]), Listener()
    with opened(meters(first=Meter("block", good), second=Meter("block", Stuck([{}]))), "cpu", listener):
        pass
    assert good.calls == ["close"]
    assert listener.lines == ["the meter 'second' could not be closed: the device is gone"]


def test_ctrl_c_while_meters_are_opened_closes_those_that_are_open() -> None:
    good = ReplayInstrument([{}])
    asked = meters(first=Meter("block", good), second=Meter("block", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt), opened(asked, "cpu", SilentProgress()):
        pytest.fail("the run must not begin")
    assert good.calls == ["close"]


def test_of_two_meters_for_the_same_value_the_first_has_it_and_the_second_says_so() -> None:
    first, second, other = instrument(), instrument(), instrument(name="wall_energy_j")
    asked = meters(energy=Meter("block", first), rapl=Meter("block", second), wall=Meter("block", other))
    with opened(asked, "cpu", SilentProgress()) as found:
        assert list(found.instruments) == ["energy", "wall"]
        assert "the meter 'energy' reads energy_j already" in found.absent["rapl"]
    assert first.calls == second.calls == other.calls == ["close"]


def test_a_probe_that_fails_leaves_a_reason() -> None:
    asked = meters(size=Meter("model", "reading"), memory=Meter("model", MeterError("no events")), e=Meter("block", 0))
    session: Any = None
    expected: Any = (["reading", 16], {"memory": "no events"})
    assert read_probes(asked, None, session, {}, 16) == expected


ASKED = meters(latency=Meter("call", None), energy=Meter("block", None), wall=Meter("block", None))


def refusal(found: Opened, kind: Any = "measured", asked: Any = ASKED) -> str:
    with pytest.raises(MissingMeasurementError) as caught:
        require_energy(asked, found, kind)
    assert caught.value.exit_code == 4
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "required", "is_enough"),
    [
        ("measured", "measured", True),
        ("estimated", "measured", False),
        ("modelled", "measured", False),
        ("measured", "estimated", True),
        ("estimated", "estimated", True),
        ("modelled", "estimated", False),
        ("modelled", "modelled", True),
    ],
)
def test_energy_of_the_required_kind_or_a_better_one_is_enough(kind: Any, required: Any, is_enough: bool) -> None:
    found = Opened({"energy": instrument(kind)}, {})
    if is_enough:
        require_energy(ASKED, found, required)
    else:
        assert f"energy: {kind}, replayed" in refusal(found, required)


def test_one_good_meter_among_bad_ones_is_enough() -> None:
    require_energy(ASKED, Opened({"energy": instrument("estimated"), "wall": instrument()}, {"x": "no driver"}))


def test_every_reason_is_named_also_why_a_better_meter_was_not_chosen() -> None:
    estimate = instrument("estimated", notes=("RAPL: no powercap tree",))
    said = refusal(Opened({"energy": estimate}, {"wall": "the file is missing"}))
    assert "energy: estimated, replayed (RAPL: no powercap tree); wall: the file is missing" in said
    assert "compressbench doctor" in said


def test_a_meter_of_something_else_and_a_cross_check_are_no_energy() -> None:
    assert "no energy meter among the recipe's meters" in refusal(Opened({"wall": instrument(name="power_w")}, {}))
    assert "no energy meter" in refusal(Opened({"energy": instrument(name="crosscheck_energy_j")}, {}))
    wall = instrument(name="wall_energy_j")
    assert "energy: estimated, replayed" in refusal(Opened({"energy": instrument("estimated"), "wall": wall}, {}))


def test_who_asks_for_no_kind_gets_by_without_a_meter() -> None:
    require_energy(ASKED, Opened({}, {"energy": "no driver"}), None)


def test_a_recipe_without_an_energy_meter_says_so() -> None:
    said = refusal(Opened({}, {}), asked=meters(latency=Meter("call", None)))
    assert "no energy meter among the recipe's meters" in said


def test_windows_that_were_left_marked_are_forgotten_and_failures_told() -> None:
    class Dead(ReplayInstrument):
        error: Exception = MeterError("GPU is lost")

        def collect(self) -> Any:
            raise self.error

    marked = ReplayInstrument([{"energy_j": 1.0}])
    marked.start()
    marked.stop()
    dead, odd = Dead([{}]), Dead([{}])
    odd.error = OSError(5, "Input/output error")
    failed = {"gpu": "GPU is lost", "odd": "OSError: [Errno 5] Input/output error"}
    assert forget_windows({"energy": marked, "gpu": dead, "odd": odd}) == failed
    assert marked.collect() == []


def window_of(joules: float, uncertainty_j: float) -> WindowsOfBlock:
    return WindowsOfBlock({"energy_j": joules}, {"energy_j": uncertainty_j}, {}, {})


def test_the_interval_joins_the_window_and_the_gain_at_95_percent() -> None:
    how = Provenance(kind="measured", source="NVML", boundary="gpu", relative_uncertainty=0.03, tick_s=0.02)
    found = energy_reading("compress_energy_j", how, window_of(100.0, 4.0), 12.5)
    assert found is not None
    half = 1.96 * math.sqrt(3.0**2 + 4.0**2)
    assert found.low == pytest.approx(100 - half, rel=1e-4)
    assert found.high == pytest.approx(100 + half, rel=1e-4)
    assert (found.boundary, found.window_s, found.tick_s, found.kind) == ("gpu", 12.5, 0.02, "measured")


def test_an_interval_of_energy_does_not_go_below_nothing() -> None:
    how = Provenance(kind="measured", source="NVML", boundary="gpu", relative_uncertainty=0.6, tick_s=0.02)
    found = energy_reading("compress_energy_j", how, window_of(1.0, 0.0), 1.0)
    assert found is not None
    assert found.low == 0.0


@pytest.mark.parametrize(("said", "expected"), [("nobody has checked it", "nobody has checked it"), ("", "not stated")])
def test_an_instrument_that_does_not_know_its_gain_gives_no_interval(said: str, expected: str) -> None:
    how = Provenance(kind="estimated", source="TDP", boundary="cpu", uncertainty_reason=said, tick_s=0.01)
    found = energy_reading("compress_energy_j", how, window_of(100.0, 4.0), 1.0)
    assert found is not None
    assert (found.low, found.high, found.uncertainty_reason) == (None, None, expected)


def test_energy_that_nobody_read_is_no_reading() -> None:
    how = Provenance(kind="measured", source="NVML", boundary="gpu", relative_uncertainty=0.05)
    assert (
        energy_reading("compress_energy_j", how, WindowsOfBlock({}, {}, {"energy": "below resolution"}, {}), 1.0)
        is None
    )
    assert energy_reading("compress_energy_j", None, window_of(1.0, 0.0), 1.0) is None
