from __future__ import annotations

import os
import random
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Window
from compressbench.meters.energy_amdsmi import AmdEnergy, EnergyAmdsmi
from compressbench.testing.amdsmi import FakeAmdGpu, FakeAmdSmi
from compressbench.testing.event_clock import EventClock


def make(*gpus: FakeAmdGpu) -> tuple[FakeAmdSmi, EventClock]:
    clock = EventClock()
    return FakeAmdSmi(gpus or [FakeAmdGpu()], clock), clock


def open_meter(amdsmi: FakeAmdSmi, device: int | str = 0) -> AmdEnergy:
    assert isinstance(amdsmi.clock, EventClock)
    return AmdEnergy(device, amdsmi=amdsmi, timing=amdsmi.clock.timing)


def measure(meter: Instrument, amdsmi: FakeAmdSmi, seconds: float) -> tuple[Window, float]:
    begin_s = amdsmi.now_s
    meter.start()
    amdsmi.clock.advance(seconds)
    meter.stop()
    true_j = amdsmi.gpus[0].true_joules(begin_s, amdsmi.now_s)
    return meter.collect()[-1], true_j


@pytest.mark.parametrize("key", ["energy_accumulator", "power"])
@pytest.mark.parametrize("tick_s", [0.001, 0.1])
def test_joules_are_counts_times_resolution(key: str, tick_s: float) -> None:
    amdsmi, _ = make(FakeAmdGpu(power=300.0, tick_s=tick_s, count_key=key))
    meter = open_meter(amdsmi)
    assert meter.provenances["energy_j"].tick_s == pytest.approx(tick_s, rel=0.1)
    rng = random.Random(0)
    for _ in range(10):
        amdsmi.clock.advance(rng.uniform(0.0, 0.2))
        window, true_j = measure(meter, amdsmi, rng.uniform(1.0, 2.0))
        error_j = window.values["energy_j"] - true_j
        assert abs(error_j) <= 3 * window.uncertainties["energy_j"] + 0.01 * true_j * tick_s
        assert window.uncertainties["energy_j"] < 0.01 * true_j


def test_a_counter_that_is_slow_to_read_is_not_read_within_a_window_that_has_a_lead() -> None:
    clock = EventClock()
    amdsmi = FakeAmdSmi([FakeAmdGpu(power=300.0)], clock, call_s=3e-3)
    meter = open_meter(amdsmi)
    assert meter.wants_lead
    assert any("not read while calls are timed" in note for note in meter.provenances["energy_j"].notes)
    for before in (True, False):
        is_over = meter.lead(before=before)
        while not is_over():
            clock.advance(0.004)
        if before:
            meter.start()
            begin_ns = clock()
            clock.advance(1.0)
            assert not meter.series(begin_ns, clock())
            meter.stop()
    (window,) = meter.collect()
    assert window.values["energy_j"] == pytest.approx(300.0, rel=0.01)
    quick, _ = make()
    assert not open_meter(quick).wants_lead


def test_changing_power_is_within_the_stated_uncertainty() -> None:
    amdsmi, _ = make(FakeAmdGpu(power=lambda at_s: 300 + 150 * ((7 * at_s) % 1)))
    meter = open_meter(amdsmi)
    window, true_j = measure(meter, amdsmi, 2.3)
    assert window.values["energy_j"] == pytest.approx(true_j, abs=3 * window.uncertainties["energy_j"])


def test_the_provenance_says_what_was_compared() -> None:
    amdsmi, _ = make(FakeAmdGpu(gain=1.2))
    how = open_meter(amdsmi).provenances["energy_j"]
    assert (how.kind, how.boundary) == ("measured", "device")
    assert how.source == "amdsmi energy counter of AMD Instinct MI300X"
    assert how.relative_uncertainty is None
    assert how.uncertainty_reason
    assert "counted 1.20 times the polled power when it was opened" in how.notes


@pytest.mark.parametrize("gain", [0.0, 0.09, 11.0])
def test_a_counter_that_contradicts_the_power_is_refused(gain: float) -> None:
    amdsmi, _ = make(FakeAmdGpu(gain=gain))
    with pytest.raises(MeterError, match=r"is stuck or wrong .*150 J by its power.*amdsmi/issues/38"):
        open_meter(amdsmi)
    assert amdsmi.num_open == 0


@pytest.mark.parametrize("gain", [0.15, 9.0])
def test_a_counter_is_not_refused_for_less(gain: float) -> None:
    amdsmi, _ = make(FakeAmdGpu(gain=gain))
    assert open_meter(amdsmi).ratio == pytest.approx(gain, rel=0.05)


def test_the_second_die_of_an_mi250_is_refused_and_the_first_says_that_it_counts_both() -> None:
    first = FakeAmdGpu(power=400.0, name="AMD Instinct MI250X", power_keys=("average_socket_power",))
    second = FakeAmdGpu(power=0.0, name="AMD Instinct MI250X", bdf="0000:c6:00.0", count=0)
    amdsmi, _ = make(first, second)
    with pytest.raises(MeterError, match=r"this die of AMD Instinct MI250X reports no power and no energy"):
        open_meter(amdsmi, 1)
    assert open_meter(amdsmi, 0).provenances["energy_j"].boundary == "device (both dies of the card)"


def test_a_counter_without_a_power_to_compare_with_is_refused() -> None:
    amdsmi, _ = make(FakeAmdGpu(power_keys=()))
    with pytest.raises(MeterError, match="knows no power of this GPU"):
        open_meter(amdsmi)
    amdsmi, _ = make(FakeAmdGpu(power_gain=0.0))
    with pytest.raises(MeterError, match="is stuck or wrong"):
        open_meter(amdsmi)


def test_a_partitioned_gpu_is_refused() -> None:
    amdsmi, _ = make(FakeAmdGpu(partition="CPX"))
    with pytest.raises(MeterError, match=r"partitioned \(CPX\)"):
        open_meter(amdsmi)
    assert open_meter(make(FakeAmdGpu(unsupported=frozenset({"amdsmi_get_gpu_compute_partition"})))[0])


def test_a_virtual_machine_that_has_no_counter_says_so() -> None:
    amdsmi, _ = make(FakeAmdGpu(unsupported=frozenset({"amdsmi_get_energy_count"})))
    with pytest.raises(MeterError, match=r"amdsmi failed in amdsmi_get_energy_count .*NOT_SUPPORTED"):
        open_meter(amdsmi)
    assert amdsmi.num_open == 0


@pytest.mark.parametrize(
    "name", ["amdsmi_get_processor_handles", "amdsmi_get_energy_count", "amdsmi_get_power_info", "amdsmi_init"]
)
def test_an_old_amdsmi_without_a_function_is_an_error_that_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    amdsmi, _ = make()
    monkeypatch.setattr(amdsmi, name, None)
    with pytest.raises(MeterError, match=rf"this amdsmi has no {name}.*Install ROCm's AMD SMI"):
        open_meter(amdsmi)
    assert amdsmi.num_open == 0


@pytest.mark.parametrize("name", ["amdsmi_get_energy_count", "amdsmi_get_power_info"])
def test_a_function_that_gives_nothing_is_an_error_and_voids_its_window(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    amdsmi, _ = make()
    monkeypatch.setattr(amdsmi, name, lambda handle: None)
    with pytest.raises(MeterError, match=rf"gave nothing usable in {name} \(got None\)"):
        open_meter(amdsmi)
    monkeypatch.undo()
    meter = open_meter(amdsmi)
    monkeypatch.setattr(amdsmi, "amdsmi_get_energy_count", lambda handle: None)
    window, _ = measure(meter, amdsmi, 1.0)
    assert "gave nothing usable in amdsmi_get_energy_count" in window.reason


def test_what_an_amdsmi_gives_nothing_of_that_need_not_be_known_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    amdsmi, _ = make()
    monkeypatch.setattr(amdsmi, "amdsmi_get_gpu_asic_info", lambda handle: None)
    assert open_meter(amdsmi).name == "an AMD GPU"
    monkeypatch.setattr(amdsmi, "amdsmi_get_processor_handles", lambda: None)
    with pytest.raises(MeterError, match=r"amdsmi has no GPU number 0 \(got 0 GPUs\)"):
        open_meter(amdsmi)


def test_no_permission_is_an_error_in_amdsmis_words(monkeypatch: pytest.MonkeyPatch) -> None:
    amdsmi, _ = make()

    def denied(_: Any) -> Any:
        raise amdsmi.AmdSmiLibraryException("Error code:\n\t10 | AMDSMI_STATUS_NO_PERM")

    monkeypatch.setattr(amdsmi, "amdsmi_get_energy_count", denied)
    with pytest.raises(MeterError, match=r"amdsmi failed in amdsmi_get_energy_count .*AMDSMI_STATUS_NO_PERM"):
        open_meter(amdsmi)
    assert amdsmi.num_open == 0


@pytest.mark.parametrize("count", ["N/A", None, -1, 3.5, True])
def test_what_is_no_count_is_an_error(count: Any) -> None:
    gpu = FakeAmdGpu(count=count) if count is not None else FakeAmdGpu(count_key="joules")
    with pytest.raises(MeterError, match="gave no count"):
        open_meter(make(gpu)[0])


@pytest.mark.parametrize("resolution_uj", [0.0, -1.0, "N/A", float("nan"), float("inf")])
def test_what_is_no_resolution_is_an_error(resolution_uj: Any) -> None:
    with pytest.raises(MeterError, match="gave no resolution"):
        open_meter(make(FakeAmdGpu(count=7, resolution_uj=resolution_uj))[0])


def fault_stuck(gpu: FakeAmdGpu) -> None:
    gpu.count = 4_760_000_000_000


def fault_backwards(gpu: FakeAmdGpu) -> None:
    gpu.start_count -= 1_000_000


def fault_reset(gpu: FakeAmdGpu) -> None:
    gpu.start_count = 0


def fault_lost(gpu: FakeAmdGpu) -> None:
    gpu.is_lost = True


def fault_garbage(gpu: FakeAmdGpu) -> None:
    gpu.count = "N/A"


def fault_resolution(gpu: FakeAmdGpu) -> None:
    gpu.resolution_uj *= 1.0001  # 7 J more, as if the GPU had worked for a moment


@pytest.mark.parametrize(
    "fault", [fault_stuck, fault_backwards, fault_reset, fault_lost, fault_garbage, fault_resolution]
)
def test_what_goes_wrong_in_a_window_voids_it(fault: Any) -> None:
    amdsmi, clock = make()
    meter = open_meter(amdsmi)
    good, true_j = measure(meter, amdsmi, 1.0)
    assert good.values["energy_j"] == pytest.approx(true_j, rel=0.01)
    meter.start()
    clock.advance(0.5)
    fault(amdsmi.gpus[0])
    clock.advance(0.5)
    meter.stop()
    (window,) = meter.collect()
    assert window.reason
    assert not window.values
    meter.close()


def test_a_tick_that_gets_slower_gives_the_truth_or_a_reason() -> None:
    for factor in (10, 100):
        amdsmi, clock = make()
        meter = open_meter(amdsmi)
        clock.advance(1.0)
        amdsmi.gpus[0].tick_s *= factor
        windows = [measure(meter, amdsmi, seconds) for seconds in (1.0, 1.0, 2.0)]
        for window, true_j in windows:
            error_j = abs(window.values.get("energy_j", true_j) - true_j)
            assert window.reason or error_j <= 3 * window.uncertainties["energy_j"]
        last, true_j = windows[-1]
        assert last.values["energy_j"] == pytest.approx(true_j, rel=0.01)


class Narrow(FakeAmdGpu):
    """Its accumulator has so few bits that it wraps every 3 s at 300 W."""

    def shown_count(self, now_s: float) -> Any:
        return super().shown_count(now_s) % round(900.0 / 15.259e-6)


@pytest.mark.parametrize("end_s", [4.5, 8.5])
def test_a_window_in_which_the_accumulator_wraps_once_or_twice_is_void_and_the_next_is_right(end_s: float) -> None:
    amdsmi, clock = make(Narrow(start_count=0))
    meter = open_meter(amdsmi)
    clock.advance(2.0 - amdsmi.now_s)
    window, _ = measure(meter, amdsmi, end_s - 2.0)
    assert "went backwards" in window.reason
    clock.advance(9.2 - amdsmi.now_s)
    window, true_j = measure(meter, amdsmi, 2.0)
    assert window.values["energy_j"] == pytest.approx(true_j, rel=0.01)


def test_a_suspended_machine_gives_the_truth_or_a_reason() -> None:
    amdsmi, clock = make(FakeAmdGpu(power=lambda second: 0.0 if 6.0 < second < 66.0 else 300.0))
    meter = open_meter(amdsmi)
    clock.advance(5.0 - amdsmi.now_s)
    meter.start()
    clock.advance(1.0)
    clock.now_ns += 60 * 10**9  # nothing ran, no thread either
    clock.advance(1.0)
    meter.stop()
    (window,) = meter.collect()
    assert "stood still for 60" in window.reason


@pytest.mark.parametrize(("processes", "words"), [
    ([os.getpid(), 1, 2], ["shared device: 2 other processes are on this GPU, their energy is included"]),
    ([os.getpid()], []),
    ([], []),
])  # fmt: skip
def test_sharing_the_gpu_is_noted(processes: list[int], words: list[str]) -> None:
    notes = open_meter(make(FakeAmdGpu(processes=processes))[0]).provenances["energy_j"].notes
    assert list(notes[2:]) == words


@pytest.mark.parametrize("answer", [None, [7], [{"name": "python"}]])
def test_that_sharing_cannot_be_read_is_noted(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    amdsmi, _ = make()
    monkeypatch.setattr(amdsmi, "amdsmi_get_gpu_process_list", lambda handle: answer)
    assert "can't be read" in open_meter(amdsmi).provenances["energy_j"].notes[-1]
    monkeypatch.setattr(amdsmi, "amdsmi_get_gpu_process_list", None)
    assert "this amdsmi has no amdsmi_get_gpu_process_list" in open_meter(amdsmi).provenances["energy_j"].notes[-1]


def test_closing_ends_everything_and_can_be_repeated() -> None:
    amdsmi, _ = make()
    meter = open_meter(amdsmi)
    assert amdsmi.num_open == 1
    meter.close()
    meter.close()
    assert amdsmi.num_open == 0
    with pytest.raises(MeterError, match="closed"):
        meter.start()


def test_a_gpu_is_found_by_its_address_whatever_its_partition() -> None:
    amdsmi, _ = make(FakeAmdGpu(bdf="0000:03:00.0"), FakeAmdGpu(bdf="0001:C1:00.1", name="the other"))
    assert open_meter(amdsmi, "0001:c1:00").name == "the other"
    with pytest.raises(MeterError, match=r"no GPU at 0000:99:00.0 .*0000:03:00.0, 0001:C1:00.1"):
        open_meter(amdsmi, "0000:99:00.0")
    with pytest.raises(MeterError, match="no GPU number 2"):
        open_meter(amdsmi, 2)


def test_torchs_device_is_found_by_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """amdsmi has another order, and doesn't know HIP_VISIBLE_DEVICES."""
    amdsmi, _ = make(FakeAmdGpu(bdf="0000:03:00.0"), FakeAmdGpu(bdf="0000:c1:00.0", name="the visible one"))
    place = SimpleNamespace(pci_domain_id=0, pci_bus_id=0xC1, pci_device_id=0)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: place)
    assert open_meter(amdsmi, "cuda:0").name == "the visible one"


def test_a_torch_for_other_gpus_is_an_error() -> None:
    amdsmi, _ = make()
    with pytest.raises(MeterError, match="not built for AMD"):
        open_meter(amdsmi, "cuda:0")
    assert amdsmi.num_open == 0


def test_the_recipe_word_opens_it_for_gpus_only() -> None:
    assert EnergyAmdsmi.scope == "block"
    with pytest.raises(MeterError, match=r"AMD GPUs, not of this device \(got cpu\)"):
        EnergyAmdsmi().open("cpu")


class Importer:
    """What `import amdsmi` does on a machine without libamd_smi.so: a line on stdout, and then an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "amdsmi":
            print("Unable to find libamd_smi.so library try installing amd-smi-lib")
            raise self.error


@pytest.mark.parametrize(
    "error",
    [KeyError("libamd_smi.so"), ImportError("none"), OSError("wrong ELF class"), AttributeError("no such symbol")],
)
def test_a_missing_amdsmi_says_what_to_install_and_prints_nothing(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Importer(error), *sys.meta_path])
    with pytest.raises(MeterError, match=rf"can't be imported \(got {type(error).__name__}.*Install ROCm's AMD SMI"):
        AmdEnergy(0)
    assert capsys.readouterr().out == ""
