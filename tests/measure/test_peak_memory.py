"""The high-water mark sees what was allocated in between, and nothing from before."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressbench.core.errors import MeterError
from compressbench.measure import peak_memory
from compressbench.measure.peak_memory import PeakMemory

MIB = 2**20

needs_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc/self/clear_refs here")


@needs_linux
def test_memory_that_came_and_went_is_seen() -> None:
    peak = PeakMemory("cpu")
    peak.start()
    held = bytearray(b"x") * (300 * MIB)
    del held
    reading = peak.stop()
    assert 299 * MIB <= reading.value < 330 * MIB, "the kernel counts pages in batches"
    assert (reading.name, reading.kind) == ("compress_peak_memory_bytes", "measured")


@needs_linux
def test_an_earlier_peak_is_not_seen() -> None:
    held = bytearray(b"x") * (300 * MIB)
    del held
    peak = PeakMemory("cpu")
    peak.start()
    assert peak.stop().value < 50 * MIB


def test_a_system_without_such_a_mark_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak_memory, "_CLEAR_REFS", tmp_path / "nowhere" / "clear_refs")
    with pytest.raises(MeterError, match="can't be reset"):
        PeakMemory("cpu").start()


def test_a_status_without_the_field_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak_memory, "_CLEAR_REFS", tmp_path / "clear_refs")
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("VmRSS:\t 1 kB\n")
    peak = PeakMemory("cpu")
    peak.start()
    with pytest.raises(MeterError, match="has no VmHWM"):
        peak.stop()
