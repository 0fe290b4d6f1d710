from __future__ import annotations

import errno
import math
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Window
from compressbench.meters.energy_csv import Clocks, CsvEnergy, EnergyCsv
from compressbench.meters.power_log import MAX_BYTES
from compressbench.testing.fakes import FakeClock
from compressbench.testing.nvml_device import PowerCurve

EPOCH_S = 1_790_000_000.0
Row = Callable[[float, float], str]


def unix_row(time_s: float, watts: float) -> str:
    return f"{time_s:.3f},{watts:.3f}\n"


class Analyser:
    """Writes a row per period, of the mean power since the last one, while its clock goes on.

    Its rows have times of a clock that is `clock_error_s` ahead; `edit` may change a row, or leave it out ("").
    """

    def __init__(
        self,
        path: Path,
        power: Any = 100.0,
        period_s: float = 1.0,
        *,
        header: str = "time,power_w\n",
        edit: Callable[[float, str], str] = lambda at_s, row: row,
    ) -> None:
        self.path, self.period_s, self.curve = path, period_s, PowerCurve(power)
        self.clock = FakeClock(0)
        self.clock_error_s, self.wall_step_s, self.is_running = 0.0, 0.0, True
        self.row: Row = unix_row
        self.edit = edit
        self._num_rows = 0
        path.write_text(header)
        self.advance(5.0)

    def now_s(self) -> float:
        return self.clock() * 1e-9

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        while self.is_running and (self._num_rows + 1) * self.period_s <= self.now_s():
            self._num_rows += 1
            at_s = self._num_rows * self.period_s
            watts = self.curve.mean_w(at_s - self.period_s, at_s)
            with self.path.open("a") as file:
                file.write(self.edit(at_s, self.row(EPOCH_S + at_s + self.clock_error_s, watts)))

    def clocks(self) -> Clocks:
        wall_s = EPOCH_S * 1e9
        return Clocks(lambda: round(wall_s + self.clock() + self.wall_step_s * 1e9), self.clock, self.advance)

    def open(self, **more: Any) -> CsvEnergy:
        given = {"power_column": "power_w"} if "energy_column" not in more else {}
        fields = {
            "path": str(self.path), "boundary": "wall", "source": "WT310", "relative_uncertainty": 0.01,
            "time_format": "unix_s", "clock_uncertainty_s": 0.0, **given, **more,
        }  # fmt: skip
        return CsvEnergy(EnergyCsv(**fields), self.clocks())

    def measure(self, meter: Instrument, seconds: float) -> tuple[Window, float]:
        begin_s = self.now_s()
        meter.start()
        self.advance(seconds)
        meter.stop()
        true_j = self.curve.joules(self.now_s()) - self.curve.joules(begin_s)
        return meter.collect()[-1], true_j


def make(tmp_path: Path, *given: Any, **more: Any) -> Analyser:
    return Analyser(tmp_path / "log.csv", *given, **more)


@pytest.mark.parametrize("period_s", [0.1, 1.0])
def test_constant_power_gives_power_times_time_wherever_the_window_begins(tmp_path: Path, period_s: float) -> None:
    analyser = make(tmp_path, 123.456, period_s)
    meter = analyser.open()
    rng = random.Random(0)
    for _ in range(20):
        analyser.advance(rng.uniform(0.0, 3.0))
        window, true_j = analyser.measure(meter, rng.uniform(5.0, 20.0))
        assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-6)
        # what is left is the last decimal of the log
        assert window.uncertainties["energy_j"] == pytest.approx(0.001 / math.sqrt(12) * window.seconds, rel=1e-6)


def test_the_provenance_is_that_of_an_external_meter(tmp_path: Path) -> None:
    meter: Instrument = make(tmp_path).open(relative_uncertainty=0.03)
    how = meter.provenances["energy_j"]
    assert (how.kind, how.source, how.boundary) == ("measured", "external: WT310", "wall")
    assert how.relative_uncertainty == 0.03
    assert how.tick_s == pytest.approx(1.0)
    assert meter.min_window_s == pytest.approx(10.0)
    assert "less certain than the 1 % that MLPerf asks for" in how.notes
    assert str(tmp_path) not in str(how)


def test_the_stated_uncertainty_holds_the_truth_when_power_changes_at_the_ends(tmp_path: Path) -> None:
    """The load begins and ends with the window, which is the worst place; the clocks are off by what was stated."""
    rng, within, errors = random.Random(1), 0, []
    for case in range(100):
        analyser = Analyser(tmp_path / f"{case}.csv", 40.0)
        analyser.clock_error_s = rng.gauss(0.0, 0.1)
        meter = analyser.open(clock_uncertainty_s=0.1)
        analyser.advance(rng.uniform(3.0, 4.0))
        analyser.curve.set(analyser.now_s(), 240.0)
        meter.start()
        begin_s = analyser.now_s()
        analyser.advance(rng.uniform(10.0, 20.0))
        meter.stop()
        end_s = analyser.now_s()
        analyser.curve.set(end_s, 40.0)
        (window,) = meter.collect()
        error_j = window.values["energy_j"] - (analyser.curve.joules(end_s) - analyser.curve.joules(begin_s))
        within += abs(error_j) <= 2 * window.uncertainties["energy_j"]
        errors.append(abs(error_j) / window.uncertainties["energy_j"])
    assert within >= 95
    assert sum(errors) / len(errors) > 0.2  # and isn't far too large


def test_noise_from_sample_to_sample_is_in_the_uncertainty(tmp_path: Path) -> None:
    rng = random.Random(2)
    analyser = make(tmp_path)
    analyser.row = lambda time_s, watts: unix_row(time_s, watts + rng.gauss(0.0, 5.0))
    meter = analyser.open()
    errors = []
    for _ in range(200):
        window, true_j = analyser.measure(meter, 20.0)
        errors.append((window.values["energy_j"] - true_j) / window.uncertainties["energy_j"])
    assert sum(abs(error) <= 2 for error in errors) / len(errors) > 0.92
    assert 0.5 < sum(abs(error) <= 1 for error in errors) / len(errors) < 0.85


def test_an_offset_of_the_clocks_is_taken_off(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    analyser.clock_error_s = 7200.0
    analyser.path.write_text("time,power_w\n")
    analyser.edit = lambda at_s, row: row.replace("100.000", "900.000") if 20 < at_s <= 40 else row
    analyser.advance(3.0)
    analyser._num_rows = int(analyser.now_s())
    analyser.advance(3.0)
    meter = analyser.open(clock_offset_s=7200.0, max_wait_s=30.0)
    analyser.advance(28.0 - analyser.now_s())
    window, _ = analyser.measure(meter, 10.0)
    assert window.values["energy_j"] == pytest.approx(9000.0, rel=1e-6)


def test_the_log_may_come_late(tmp_path: Path) -> None:
    """A PDU's exporter that writes many rows at a time."""
    analyser = make(tmp_path)
    meter = analyser.open()
    analyser.is_running = False
    meter.start()
    analyser.advance(20.0)
    meter.stop()
    analyser.is_running = True  # and writes all that it holds back at the next moment
    (window,) = meter.collect()
    assert window.values["energy_j"] == pytest.approx(2000.0, rel=1e-6)


def test_windows_come_in_their_order(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    meter = analyser.open()
    for seconds in (10.0, 20.0, 30.0):
        meter.start()
        analyser.advance(seconds)
        meter.stop()
        analyser.advance(2.5)
    assert [round(window.values["energy_j"]) for window in meter.collect()] == [1000, 2000, 3000]
    assert meter.collect() == []


def iso_row(time_s: float, watts: float) -> str:
    return f"{datetime.fromtimestamp(time_s, timezone(timedelta(hours=2))).isoformat()},{watts:.3f}\n"


def zulu_row(time_s: float, watts: float) -> str:
    return (
        f"{datetime.fromtimestamp(time_s, UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')},{watts:.3f}\n"
    )


@pytest.mark.parametrize(
    ("row", "time_format"),
    [
        (unix_row, "unix_s"),
        (lambda time_s, watts: f"{time_s * 1e3:.0f},{watts:.3f}\n", "unix_ms"),
        (iso_row, "iso8601"),
        (zulu_row, "iso8601"),
    ],
)
def test_times_are_read_as_the_log_writes_them(tmp_path: Path, row: Row, time_format: str) -> None:
    analyser = make(tmp_path)
    analyser.path.write_text("time,power_w\n")
    analyser.row = row
    analyser.advance(5.0)
    meter = analyser.open(time_format=time_format)
    window, true_j = analyser.measure(meter, 10.4)
    assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-6)


def test_ptdaemons_log_is_read(tmp_path: Path) -> None:
    """Rows as those of mlcommons/power-dev: no header, local time, a name before every value."""

    def row(time_s: float, watts: float) -> str:
        local = datetime.fromtimestamp(time_s + 3600.0, UTC)
        text = f"{local:%m-%d-%Y %H:%M:%S}.{local.microsecond // 1000:03d}"
        return f"Time,{text},Watts,{watts:.6f},Volts,228.370000,Amps,0.204280,PF,0.502300,Mark,testing\r\n"

    analyser = make(tmp_path, header="")
    analyser.path.write_text("")
    analyser.row = row
    analyser.advance(5.0)
    meter = analyser.open(
        time_format="ptdaemon", time_column="Time", power_column="Watts", clock_offset_s=3600.0, max_wait_s=5.0
    )
    window, true_j = analyser.measure(meter, 12.3)
    assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-6)
    bad_at_s = math.ceil(analyser.now_s()) + 5
    analyser.edit = lambda at_s, text: text.replace("Watts", "Watt") if at_s == bad_at_s else text
    window, _ = analyser.measure(meter, 12.3)
    assert "a row without Time and Watts" in window.reason


@pytest.mark.parametrize(("unit", "factor"), [("mW", 1e3), ("W", 1.0), ("kW", 1e-3)])
def test_units_of_power(tmp_path: Path, unit: str, factor: float) -> None:
    analyser = make(tmp_path, header=f"power [{unit}],time\n")
    analyser.path.write_text(f"\ufeffpower [{unit}],note,time\n# a comment\n\n")
    analyser.row = lambda time_s, watts: f'{watts * factor:.6f},"a, b",{time_s:.3f}\n'
    analyser.advance(5.0)
    window, true_j = analyser.measure(analyser.open(power_column=f"power [{unit}]", unit=unit), 10.0)
    assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-6)


@pytest.mark.parametrize(("unit", "joules", "decimals"), [("J", 1.0, 3), ("Wh", 3600.0, 6), ("kWh", 3.6e6, 9)])
def test_an_energy_counter_is_a_difference(tmp_path: Path, unit: str, joules: float, decimals: int) -> None:
    analyser = make(tmp_path, header="time,energy\n")
    analyser.path.write_text("time;energy\n")
    analyser.row = lambda time_s, watts: (
        f"{time_s:.3f};{analyser.curve.joules(time_s - EPOCH_S) / joules:.{decimals}f}\n"
    )
    analyser.advance(5.0)
    meter = analyser.open(energy_column="energy", unit=unit, delimiter=";", name="wall_energy_j")
    analyser.advance(0.37)
    window, true_j = analyser.measure(meter, 11.1)
    assert window.values["wall_energy_j"] == pytest.approx(true_j, rel=1e-4)
    assert window.uncertainties["wall_energy_j"] < 0.005 * true_j
    assert meter.provenances.keys() == {"wall_energy_j"}


def test_a_coarse_counter_is_uncertain_by_its_last_decimal_or_below_resolution(tmp_path: Path) -> None:
    analyser = make(tmp_path, header="time,energy_kwh\n")
    analyser.path.write_text("time,energy_kwh\n")
    # steps of 3,600 J
    analyser.row = lambda time_s, watts: (
        f"{time_s:.3f},{int(analyser.curve.joules(time_s - EPOCH_S) / 3600) / 1000:.3f}\n"
    )
    analyser.advance(5.0)
    meter = analyser.open(energy_column="energy_kwh", unit="kWh")
    window, _ = analyser.measure(meter, 10.0)
    assert window.reason == "below_resolution: 0 J in 10 s"
    window, true_j = analyser.measure(meter, 300.0)
    assert abs(window.values["energy_j"] - true_j) <= 3 * window.uncertainties["energy_j"]
    assert window.uncertainties["energy_j"] >= 3600 / math.sqrt(6) * 0.99


def test_a_counter_that_goes_back_voids_the_window(tmp_path: Path) -> None:
    analyser = make(tmp_path, header="time,energy\n")
    analyser.path.write_text("time,energy\n")
    analyser.row = lambda time_s, watts: f"{time_s:.3f},{(time_s - EPOCH_S) * 100 % 1500:.1f}\n"
    analyser.advance(5.0)
    window, _ = analyser.measure(analyser.open(energy_column="energy"), 20.0)
    assert window.reason.startswith("counter_reset")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nan", "no number: 'nan'"),
        ("inf", "no number: 'inf'"),
        ("", "no number: ''"),
        ("1_000", "no number: '1_000'"),
        ("12;5", "no number: '12;5'"),
        ("=cmd|'/c calc'!A0", "no number: \"=cmd|'/c calc'!A0\""),
        ("@SUM(1)", "no number: '@SUM(1)'"),
        ("+100", "no number: '+100'"),
        ("1e309", "no finite number"),
        ("100 W", "no number: '100 W'"),
        ("١٠٠", "no number"),
        ("-3.0", "the log has a negative power in the window: -3 W"),
    ],
)
def test_a_cell_that_is_no_number_of_watts_voids_its_window_and_no_other(
    tmp_path: Path, text: str, reason: str
) -> None:
    analyser = make(tmp_path)
    analyser.edit = lambda at_s, row: row.replace("100.000", text) if at_s == 10 else row
    meter = analyser.open()
    window, _ = analyser.measure(meter, 12.0)
    assert reason in window.reason
    after, _ = analyser.measure(meter, 12.0)
    assert after.values["energy_j"] == pytest.approx(1200.0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1790000010\n", "a row of 1 cells"),
        ("yesterday,100\n", "no number: 'yesterday'"),
        ("1790000010000,100\n", "is ahead of now: a wrong clock, zone or unit"),
        ("1790000008.5,100\n", "is not later than the one before it"),
        ("1790000009.000,100\n", "is not later than the one before it"),
        ("\xff\xfe\x00,\x00\n", "no number"),
        ("\x00\n", "bad rows in the window"),
    ],
)
def test_a_bad_row_voids_the_window_that_it_falls_in(tmp_path: Path, line: str, reason: str) -> None:
    analyser = make(tmp_path)
    analyser.edit = lambda at_s, row: line if at_s == 10 else row
    meter = analyser.open()
    window, _ = analyser.measure(meter, 12.0)
    assert reason in window.reason
    after, _ = analyser.measure(meter, 12.0)
    assert after.values["energy_j"] == pytest.approx(1200.0)


@pytest.mark.parametrize(("bad_at_s", "is_void"), [(5, True), (6, True), (16, True), (17, True), (18, False)])
def test_a_bad_row_counts_where_the_window_needs_it(tmp_path: Path, bad_at_s: int, is_void: bool) -> None:
    """Also just outside: the sample before the beginning, and the one after the end."""
    analyser = make(tmp_path, edit=lambda at_s, row: "?\n" if at_s == bad_at_s else row)
    analyser.advance(0.5)
    window, _ = analyser.measure(analyser.open(), 11.3)
    assert bool(window.reason) == is_void


def test_a_time_without_a_zone_is_no_time(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    analyser.row = lambda time_s, watts: f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%S},{watts}\n"
    analyser.path.write_text("time,power_w\n")
    analyser.advance(5.0)
    with pytest.raises(MeterError, match=r"no samples .*0 samples; its last bad row: a time without a zone"):
        analyser.open(time_format="iso8601")


def test_a_gap_voids_the_window(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    analyser.edit = lambda at_s, row: "" if 10 <= at_s < 13 else row
    meter = analyser.open()
    window, _ = analyser.measure(meter, 12.0)
    assert window.reason == "the log has a gap of 4 s in the window, where samples are 1 s apart"
    analyser.edit = lambda at_s, row: "" if 20 <= at_s < 22 else row
    window, _ = analyser.measure(meter, 12.0)
    assert window.values["energy_j"] == pytest.approx(1200.0)


def test_a_log_that_freezes_while_the_load_rises_voids_the_window(tmp_path: Path) -> None:
    rng = random.Random(3)
    analyser = make(tmp_path, [(0.0, 100.0), (28.0, 300.0)])
    analyser.row = lambda time_s, watts: unix_row(time_s, watts + rng.gauss(0.0, 0.5))
    last = [""]

    def freeze(at_s: float, row: str) -> str:
        last[0] = row.split(",")[1] if at_s <= 28 else last[0]
        return f"{EPOCH_S + at_s:.3f},{last[0]}"

    analyser.edit = freeze
    analyser.advance(15.0)
    window, _ = analyser.measure(analyser.open(), 20.0)
    assert window.reason.startswith("the log stands still for 13 s, at ")  # a period after the window is read, too


def test_a_suspended_machine_voids_the_window(tmp_path: Path) -> None:
    """The log goes on meanwhile, on the wall clock; the other clock stands still."""
    analyser = make(tmp_path)
    meter = analyser.open(clock_uncertainty_s=0.1)
    meter.start()
    analyser.advance(6.0)
    analyser.wall_step_s = analyser.clock_error_s = 3600.0
    analyser.advance(6.0)
    meter.stop()
    (window,) = meter.collect()
    assert window.reason == "the wall clock was set by 3.6e+03 s in the window or after it"


def test_a_log_that_gets_ten_times_slower_is_void_until_its_period_is_known(tmp_path: Path) -> None:
    analyser = make(tmp_path, edit=lambda at_s, row: row if at_s < 12 or at_s % 10 == 0 else "")
    meter = analyser.open()
    windows, true_j = [analyser.measure(meter, 30.0) for _ in range(6)], 3000.0
    assert windows[0][0].reason == "the log has a gap of 10 s in the window, where samples are 1 s apart"
    assert windows[-1][0].values["energy_j"] == pytest.approx(true_j)
    assert meter.period_s == pytest.approx(10.0)


def test_a_log_that_ends_too_early_voids_the_window_after_a_bounded_wait(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    meter = analyser.open(max_wait_s=7.0)
    analyser.advance(1.0)
    meter.start()
    analyser.advance(10.0)
    analyser.is_running = False
    analyser.advance(4.0)
    meter.stop()
    before_s = analyser.now_s()
    (window,) = meter.collect()
    assert window.reason == "the log ends 4 s before the window"
    assert 7.0 <= analyser.now_s() - before_s < 7.3


def test_a_window_before_the_log_began_is_void(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    meter = analyser.open()
    meter._windows = [(meter._now()._replace(wall_s=EPOCH_S - 20), meter._now()._replace(wall_s=EPOCH_S - 5))]
    (window,) = meter.collect()
    assert window.reason


def test_a_window_of_a_sample_is_below_resolution(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    window, _ = analyser.measure(analyser.open(), 1.2)
    assert window.reason == "below_resolution: 1 samples in a window of 1.2 s"


def test_no_power_is_below_resolution_and_not_zero(tmp_path: Path) -> None:
    analyser = make(tmp_path, 0.0)
    window, _ = analyser.measure(analyser.open(), 12.0)
    assert window.reason == "below_resolution: 0 J in 12 s"


@pytest.mark.parametrize("at", ["within", "after"])
@pytest.mark.parametrize("step_s", [3600.0, -3.0])
def test_a_clock_that_is_set_voids_the_windows_that_it_was_wrong_for(tmp_path: Path, at: str, step_s: float) -> None:
    analyser = make(tmp_path)
    meter = analyser.open(max_wait_s=1.0, clock_uncertainty_s=0.1)
    meter.start()
    analyser.advance(6.0)
    if at == "within":
        analyser.wall_step_s = step_s
    analyser.advance(6.0)
    meter.stop()
    if at == "after":
        analyser.wall_step_s = step_s
    (window,) = meter.collect()
    assert window.reason == f"the wall clock was set by {step_s:.3g} s in the window or after it"


def test_a_clock_that_is_nudged_by_less_than_its_uncertainty_is_believed(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    meter = analyser.open(clock_uncertainty_s=0.1)
    meter.start()
    analyser.advance(6.0)
    analyser.wall_step_s = 0.05
    analyser.advance(6.0)
    meter.stop()
    (window,) = meter.collect()
    assert window.values["energy_j"] == pytest.approx(1200.0)
    assert window.seconds == pytest.approx(12.0)


def test_a_half_written_row_is_waited_for(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    meter = analyser.open()
    analyser.edit = lambda at_s, row: row.rstrip("\n").replace("100.000", "10") if at_s == 17 else row
    begin = analyser.now_s()
    meter.start()
    analyser.advance(12.0)
    meter.stop()
    assert analyser.now_s() == begin + 12
    analyser.edit = lambda at_s, row: f"0.000\n{row}" if at_s == 18 else row
    (window,) = meter.collect()
    assert window.values["energy_j"] == pytest.approx(1200.0)


def test_a_log_that_is_rotated_goes_on(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    meter = analyser.open()
    meter.start()
    analyser.advance(5.5)
    with analyser.path.open("a") as file:
        file.write("17900")  # a row that will never be finished
    meter._log.refresh()
    analyser.path.rename(tmp_path / "log.1")
    meter._log.refresh()
    analyser.path.write_text("time,power_w\n")
    analyser.advance(6.5)
    meter.stop()
    (window,) = meter.collect()
    assert window.values["energy_j"] == pytest.approx(1200.0)


def test_no_log_is_an_error(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    analyser.path.unlink()
    analyser.is_running = False
    with pytest.raises(MeterError, match="there is no power log"):
        analyser.open()


def test_a_log_without_rows_is_an_error_after_a_bounded_wait(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    analyser.path.write_text("time,power_w\n")
    analyser.is_running = False
    before_s = analyser.now_s()
    with pytest.raises(MeterError, match=r"no samples \(got 0 samples\)"):
        analyser.open(max_wait_s=3.0)
    assert analyser.now_s() - before_s < 3.3


def test_a_missing_column_is_an_error_with_those_that_there_are(tmp_path: Path) -> None:
    analyser = make(tmp_path, header="stamp,watts\n")
    with pytest.raises(MeterError, match=r"no column 'time' \(got stamp, watts\)"):
        analyser.open()


def test_a_path_is_data_and_only_a_regular_file_is_read(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    analyser.is_running = False
    for make_other in (lambda path: path.mkdir(), os.mkfifo):
        analyser.path = tmp_path / f"other-{make_other.__name__}"
        make_other(analyser.path)
        with pytest.raises(MeterError, match=r"no regular file|can't be read"):
            analyser.open()
    analyser.path = Path("/dev/zero")
    with pytest.raises(MeterError, match="no regular file"):
        analyser.open()


def test_a_log_without_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analyser = make(tmp_path)

    def denied(*_: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", denied)  # a mode of 0 doesn't stop root
    with pytest.raises(MeterError, match=r"log.csv: the power log can't be read .got Permission denied"):
        analyser.open()


def test_a_file_system_that_fails_while_the_log_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyser = make(tmp_path)
    meter = analyser.open()
    meter.start()
    analyser.advance(10.0)
    meter.stop()

    def stale(*_: Any) -> Any:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "pread", stale)
    with pytest.raises(MeterError, match=r"the power log can't be read .*Stale file handle"):
        meter.collect()


def test_a_file_that_is_too_large_or_has_no_lines_is_refused(tmp_path: Path) -> None:
    analyser = make(tmp_path)
    analyser.is_running = False
    with analyser.path.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(MeterError, match="too large"):
        analyser.open()
    analyser.path.write_bytes(b"x" * 100_000)
    with pytest.raises(MeterError, match="has no lines"):
        analyser.open()


def test_starting_twice_and_stopping_without_a_start_are_errors(tmp_path: Path) -> None:
    meter = make(tmp_path).open()
    with pytest.raises(MeterError, match="stopped before it was started"):
        meter.stop()
    meter.start()
    with pytest.raises(MeterError, match="started twice"):
        meter.start()
    meter.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"power_column": None}, "either power_column or energy_column"),
        ({"energy_column": "energy"}, "either power_column or energy_column"),
        ({"unit": "kWh"}, "'kWh' is no unit of power"),
        ({"power_column": "power_kw"}, "'power_kw' is not in W by its name"),
        ({"power_column": "Power [mW]", "unit": "W"}, "is not in W by its name"),
        ({"boundary": ""}, "boundary"),
        ({"source": ""}, "source"),
        ({"relative_uncertainty": 0.0}, "relative_uncertainty"),
        ({"clock_uncertainty_s": -1.0}, "clock_uncertainty_s"),
        ({"max_wait_s": 1e6}, "max_wait_s"),
        ({"time_format": "%Y"}, "time_format"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_recipe_that_can_not_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    given = {"path": "log.csv", "boundary": "wall", "source": "PDU", "relative_uncertainty": 0.02, "power_column": "p"}
    with pytest.raises(ValidationError, match=message.replace("[", r"\[")):
        EnergyCsv(**{**given, **changes})


@pytest.mark.parametrize("name", ["boundary", "source", "relative_uncertainty", "path"])
def test_what_only_the_user_knows_has_to_be_given(name: str) -> None:
    given = {"path": "log.csv", "boundary": "wall", "source": "PDU", "relative_uncertainty": 0.02, "power_column": "p"}
    del given[name]
    with pytest.raises(ValidationError, match=name):
        EnergyCsv(**given)


def test_the_recipe_word_reads_the_real_clocks(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("time,power_w\n" + "".join(unix_row(EPOCH_S - 3e8 + second, 50.0) for second in range(5)))
    meter = EnergyCsv(
        path=str(path), boundary="wall", source="PDU", relative_uncertainty=0.02, power_column="power_w",
        time_format="unix_s", max_wait_s=0.0,
    ).open("cpu")  # fmt: skip
    meter.start()
    meter.stop()
    (window,) = meter.collect()
    assert window.reason.startswith("the log ends ")
