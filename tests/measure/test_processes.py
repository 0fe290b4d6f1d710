"""Arms in alternating processes: the order, what is merged, what a process that fails says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.core.errors import CellError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Provenance
from compressbench.measure.arm_process import Job, Result, read_inputs, write_inputs
from compressbench.measure.processes import compare_in_processes, in_a_process, merged
from compressbench.measure.schedule import Schedule
from compressbench.records.evidence import Evidence
from compressbench.records.measurement import Arm, Block, WarmUp
from compressbench.report.paired import paired_ratio, quantities
from compressbench.report.rows import rows_of

SHAPE = {"batch_size": 1, "num_inputs": 3}
ENERGY = Provenance(kind="measured", source="x", boundary="device", relative_uncertainty=0.0, tick_s=0.1)


def job(model: str, **changed: Any) -> Job:
    fields: dict[str, Any] = {
        "model": model, "head": "sequence-classification", "device": "cpu", "num_threads": 1,
        "runtime": {"use": "torch"}, "meters": (), "inputs": "inputs", "output_tokens": None, "tier": "smoke",
        "block_s": 0.05, "min_s": 0.1, "max_s": 1.0,
    }  # fmt: skip
    return Job(**{**fields, **changed})


class Machine:
    """Stands in for processes: a model named after the nanoseconds that a call of it takes."""

    def __init__(self, unsteady: int = -1, other: Mapping[int, Provenance] | None = None) -> None:
        """`other` are the processes that read energy in another way, by their number from 1."""
        self.jobs: list[Job] = []
        self._unsteady, self._other = unsteady, other or {}

    def __call__(self, told: Job) -> Result:
        self.jobs.append(told)
        number, nanoseconds = len(self.jobs), int(told.model)
        state: Any = "not-reached" if number == self._unsteady else "yes"
        count = told.num_calls or 50_000_000 // nanoseconds
        return Result(
            block=Block(
                round=0, position=0, arm="baseline", latencies_ns=(nanoseconds,) * count, seconds=0.05,
                raw={"energy_j": float(number), "ram_energy_j": 1.0},
                uncertainties={"energy_j": 0.1, "ram_energy_j": 0.1},
            ),
            warm_up=WarmUp(num_calls=10, seconds=0.5, first_call_s=number, steady_state=state, reason="it drifts"),
            provenance={"energy_j": self._other.get(number, ENERGY), "ram_energy_j": ENERGY},
            failed={},
            absent={"power": "no such meter"},
            evidence=Evidence(foreign_share=(number / 100,), unread={"cpu_frequency_hz": "no file"}),
            harness_overhead_ns=float(number),
            load_seconds=1.0,
        )  # fmt: skip


def compare(machine: Machine, rounds: int = 2) -> Any:
    jobs: dict[Arm, Job] = {"baseline": job("10000000"), "candidate": job("5000000")}
    return compare_in_processes(jobs, SHAPE, Schedule(rounds, 0.05), SilentProgress(), machine)


def test_every_block_has_a_process_and_the_order_is_that_of_one_process() -> None:
    machine = Machine()
    found, failed = compare(machine)
    letters = {"10000000": "A", "5000000": "B"}
    assert "".join(letters[told.model] for told in machine.jobs) == "ABAABA" + "BAAAAB"
    arms = "".join({"baseline": "A", "candidate": "B", "control": "C"}[block.arm] for block in found.blocks)
    assert arms == "ABCCBA" + "BCAACB"
    assert [(block.round, block.position) for block in found.blocks] == [(r, p) for r in range(2) for p in range(6)]
    assert (found.protocol, found.isolation, found.num_planned_rounds) == (2, "processes", 2)
    assert failed == {"power": "no such meter"}


def test_later_processes_make_as_many_calls_as_the_first_of_their_arm() -> None:
    machine = Machine()
    found, _ = compare(machine)
    assert found.calls_per_block == {"baseline": 5, "candidate": 10, "control": 5}
    assert [told.num_calls for told in machine.jobs[:4]] == [None, None, 5, 5]
    assert {told.num_calls for told in machine.jobs[4:]} == {5, 10}


def test_ratios_evidence_and_energy_are_those_of_the_blocks() -> None:
    found, _ = compare(Machine(), rounds=3)
    ratio = paired_ratio(found, quantities(found)["latency_p50_s"].value_of)
    assert ratio == pytest.approx((0.5, 0.5, 0.5))
    assert [block.raw["energy_j"] for block in found.blocks] == [float(number) for number in range(1, 19)]
    assert found.evidence is not None
    assert found.evidence.foreign_share == tuple(number / 100 for number in range(1, 19))
    assert found.harness_overhead_ns == 18.0


@pytest.mark.parametrize("changed", [{"kind": "estimated"}, {"source": "y"}, {"boundary": "cpu"}])
@pytest.mark.parametrize("others", [{1}, {3, 8, 9}, {12}])
def test_energy_that_was_not_read_in_the_same_way_in_all_processes_is_none(
    changed: dict[str, Any], others: set[int]
) -> None:
    other = ENERGY.model_copy(update=changed)
    found, failed = compare(Machine(other=dict.fromkeys(others, other)))
    assert {name for block in found.blocks for name in (*block.raw, *block.uncertainties)} == {"ram_energy_j"}
    assert set(found.provenance) == {"ram_energy_j"}
    (reason,) = {block.void["energy_j"] for block in found.blocks}
    assert f"measured, x, device in {12 - len(others)}" in reason
    assert f"{other.kind}, {other.source}, {other.boundary} in {len(others)}" in reason
    cell = rows_of([build.record(measurement=found)])[0].cells["energy_j_per_inference"]
    assert (cell.value, cell.kind) == (None, "")
    assert cell.reason == f"4 of 4 windows have no energy: {reason}"
    assert failed == {"power": "no such meter"}


def test_another_tick_of_the_same_meter_is_the_same_meter() -> None:
    found, _ = compare(Machine(other={3: ENERGY.model_copy(update={"tick_s": 0.2, "notes": ("warm",)})}))
    assert all("energy_j" in block.raw and not block.void for block in found.blocks)


@pytest.mark.parametrize(
    ("unsteady", "states"), [(-1, ("yes", "yes")), (2, ("yes", "not-reached")), (3, ("yes", "yes"))]
)
def test_an_arm_is_steady_if_each_of_its_processes_was(unsteady: int, states: tuple[str, str]) -> None:
    found, _ = compare(Machine(unsteady))
    assert tuple(found.warm_up[arm].steady_state for arm in ("baseline", "candidate")) == states
    assert found.warm_up["baseline"].first_call_s == 1
    assert found.warm_up["candidate"].num_calls == 40
    if unsteady == 2:
        assert found.warm_up["candidate"].reason == "1 of 4 processes: it drifts"


def test_evidence_that_one_process_lacks_is_unknown_there_and_kept_elsewhere() -> None:
    parts = [
        Evidence(foreign_share=(0.1,), steal_share=(0.0,)),
        Evidence(steal_share=(0.2,), unread={"foreign_share": "x"}),
    ]
    both = merged(parts)
    assert both is not None
    assert (both.foreign_share, both.steal_share) == ((0.1, None), (0.0, 0.2))
    assert both.unread == {"foreign_share": "x"}
    assert both.cpu_share == ()
    assert merged([*parts, None]) is None


def test_inputs_pass_through_a_file_unchanged_and_in_order(tmp_path: Path) -> None:
    import torch

    inputs = [
        {"input_ids": torch.arange(4).view(1, 4) + index, "mask": torch.ones(1, 4)[:, ::1]} for index in range(12)
    ]
    write_inputs(tmp_path / "inputs", inputs)
    again = read_inputs(tmp_path / "inputs")
    assert len(again) == 12
    for before, after in zip(inputs, again, strict=True):
        assert all(bool((before[name] == after[name]).all()) for name in before)


def test_a_process_that_fails_says_its_exit_code_and_last_words(tmp_path: Path) -> None:
    with pytest.raises(CellError, match="exit code 1") as caught:
        in_a_process(tmp_path)(job(str(tmp_path / "nowhere")))
    assert "nowhere" in str(caught.value)


@pytest.mark.slow
def test_real_processes_measure_a_model_against_itself(tmp_path: Path) -> None:
    import torch

    from compressbench.models.artefact import save_artefact
    from compressbench.testing import tiny_classifier

    save_artefact(tiny_classifier(), tmp_path / "model", {})
    ids = torch.arange(8).view(1, 8)
    write_inputs(tmp_path / "inputs", [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    told = job(str(tmp_path / "model"), inputs=str(tmp_path / "inputs"), meters=({"use": "energy"},), block_s=0.3)
    jobs: dict[Arm, Job] = {"baseline": told, "candidate": told}
    found, _ = compare_in_processes(jobs, SHAPE, Schedule(1, 0.3), SilentProgress(), in_a_process(tmp_path))
    assert len(found.blocks) == 6
    assert all(block.raw["energy_j"] > 0 for block in found.blocks)
    assert found.evidence is not None
    assert len(found.evidence.cpu_share) == 6
    assert all(share > 0 for share in found.evidence.cpu_share if share is not None)
