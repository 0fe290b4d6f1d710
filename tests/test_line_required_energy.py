"""`run --require-energy`: exit code 4 unless every record has joules of that kind, whatever became of the meter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from line_parts import called, open_with, recipe_data, without_limits, write_data, write_model, write_recipe

from compressbench.core.protocols import Instrument, Window
from compressbench.records.idle_power import OF_THIS_PROCESS
from compressbench.records.record import Record
from compressbench.records.store import read_records
from compressbench.report.rows import rows_of
from compressbench.testing import BrokenInstrument, ReplayInstrument

BF16 = {"name": "bf16", "compress": [{"use": "cast", "dtype": "bfloat16"}]}
ZEROS = {"name": "zeros", "compress": [{"use": "magnitude", "sparsity": 0.5}]}
WORKLOAD = {"tier": "smoke", "sequence_length": 8, "rounds": 1, "block_s": 0.01, "num_threads": 1}
MEASURED = ("--require-energy", "measured")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder / "model"), write_data(folder / "data")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_limits(monkeypatch)


def recipe(parts: tuple[Path, Path], tmp_path: Path, *candidates: Any, **sections: Any) -> Path:
    data = recipe_data(*parts, list(candidates), meters=["latency", "energy"], workload=WORKLOAD)
    return write_recipe(tmp_path / "r.yaml", {**data, **sections})


def meter(kind: Any = "measured", name: str = "energy_j", boundary: str = "device") -> ReplayInstrument:
    made = ReplayInstrument([{name: 5.0}], kind=kind)
    made.provenances = {name: made.provenances[name].model_copy(update={"boundary": boundary})}
    return made


def stored(out: Path) -> dict[str, Record]:
    return {record.candidate: record for record in read_records([out])[0]}


def energy_of(record: Record) -> tuple[float | None, str, str]:
    cell = rows_of([record])[0].cells["energy_j_per_inference"]
    return cell.value, cell.kind, cell.reason


def test_energy_that_every_record_has_is_enough(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_with(monkeypatch, meter)
    assert called(capsys, "run", recipe(parts, tmp_path, BF16), "--out", tmp_path / "out", *MEASURED)[0] == 0
    assert [energy_of(record)[1] for record in stored(tmp_path / "out").values()] == ["measured", "measured"]


def test_a_meter_that_vanishes_in_the_first_round_ends_the_run_and_the_baseline_is_kept(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_with(monkeypatch, lambda: BrokenInstrument(2, {"energy_j": 5.0}))
    code, said = called(capsys, "run", recipe(parts, tmp_path, BF16), "--out", tmp_path / "out", *MEASURED)
    assert code == 4
    assert "energy has to be measured" in said
    assert "baseline: the instrument was unplugged" in said
    found = stored(tmp_path / "out")
    assert {name: record.status for name, record in found.items()} == {"baseline": "ok"}
    assert energy_of(found["baseline"]) == (None, "", "the instrument was unplugged")


class LostFor(ReplayInstrument):
    """Whose windows are void from its n-th on, for so many."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__([{"energy_j": 5.0}])
        self._void, self._num_windows = range(first, first + count), 0

    def collect(self) -> list[Window]:
        windows = super().collect()
        numbers = range(self._num_windows, self._num_windows + len(windows))
        self._num_windows += len(windows)
        lost = Window(seconds=1.0, reason="counter reset")
        return [lost if number in self._void else each for number, each in zip(numbers, windows, strict=True)]


def test_a_candidate_without_energy_costs_the_others_nothing_and_is_measured_again_by_resume(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # the baseline has 6 windows and 2 of the idle machine, the first candidate the same after that of its compression
    open_with(monkeypatch, lambda: LostFor(8, 9))
    command = ("run", recipe(parts, tmp_path, BF16, ZEROS), "--out", tmp_path / "out", *MEASURED)
    code, said = called(capsys, *command)
    assert code == 4
    assert "bf16: 2 of 2 windows have no energy: counter reset" in said
    assert "zeros" not in said.partition("energy has to be")[2]
    found = stored(tmp_path / "out")
    assert {name: energy_of(record)[1] for name, record in found.items()} == {
        "baseline": "measured", "bf16": "", "zeros": "measured",
    }  # fmt: skip
    open_with(monkeypatch, meter)
    assert called(capsys, *command, "--resume")[0] == 0
    runs = [record.candidate for record in read_records([tmp_path / "out"])[0]]
    assert runs == ["baseline", "bf16", "zeros", "baseline", "bf16"]
    assert energy_of(stored(tmp_path / "out")["bf16"])[1] == "measured"


def test_records_of_a_lesser_kind_are_unfinished_when_a_run_is_resumed(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("run", recipe(parts, tmp_path, BF16), "--out", tmp_path / "out")
    open_with(monkeypatch, lambda: meter("estimated"))
    assert called(capsys, *command)[0] == 0
    code, said = called(capsys, *command, "--resume", *MEASURED)
    assert code == 4, "the meter is still the same"
    assert "energy: estimated, replayed" in said
    open_with(monkeypatch, meter)
    assert called(capsys, *command, "--resume", "--require-energy", "estimated")[0] == 0
    assert len(read_records([tmp_path / "out"])[0]) == 2, "what was asked is there"
    assert called(capsys, *command, "--resume", *MEASURED)[0] == 0
    assert [energy_of(record)[1] for record in stored(tmp_path / "out").values()] == ["measured", "measured"]


def test_measured_joules_of_another_name_do_not_stand_in_for_an_estimate(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def both() -> Instrument:
        made = ReplayInstrument([{"energy_j": 5.0, "wall_energy_j": 9.0}])
        how = made.provenances["energy_j"].model_copy(update={"kind": "estimated", "source": "a guess"})
        made.provenances = {**made.provenances, "energy_j": how}
        return made

    open_with(monkeypatch, both)
    code, said = called(capsys, "run", recipe(parts, tmp_path, BF16), "--out", tmp_path / "out", *MEASURED)
    assert code == 4
    assert "energy: estimated, a guess" in said
    assert not list((tmp_path / "out").iterdir()), "nothing was measured"


def test_a_meter_that_does_not_see_the_server_of_a_candidate_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"q": "ROMEO:", "a": "O"}\n' * 16)
    task = {"use": "generation", "data": str(tmp_path / "prompts.jsonl"), "max_new_tokens": 6}
    served = {"use": "endpoint", "url": "http://127.0.0.1:9", "model": "m"}
    data = {
        "name": "served",
        "model": "embedded:shakespeare-lm",
        "tasks": [{**task, "doc_to_text": "{{q}}", "doc_to_target": "{{a}}"}],
        "workload": {**WORKLOAD, "output_tokens": 3},
        "meters": ["latency", "energy"],
        "device": "cpu",
        "candidates": [{"name": "served", "runtime": served}],
    }
    open_with(monkeypatch, lambda: meter(boundary=f"cpu ({OF_THIS_PROCESS})"))
    path = write_recipe(tmp_path / "served.yaml", data)
    code, said = called(capsys, "run", path, "--out", tmp_path / "out", *MEASURED)
    assert code == 4
    assert "energy: it is an estimate of this process, and the server is another" in said
    assert not list((tmp_path / "out").iterdir()), "nothing was measured"
