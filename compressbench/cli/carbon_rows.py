"""Rows as `carbon` reads them: what each measured, and the baseline that it is compared with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from compressbench.core.statistics import Interval
from compressbench.lifecycle.account import INFERENCE, Account, Facts, Paired, account_of
from compressbench.lifecycle.amounts import Amount, absent, inverse, measured
from compressbench.lifecycle.carbon import Score, Terms, Work
from compressbench.lifecycle.embodied import Hardware, held

if TYPE_CHECKING:
    from compressbench.report.catalog import Catalog
    from compressbench.report.figures import Contender
    from compressbench.report.rows import Row

NAMES = ("energy_j_per_inference",)
_ONE_ANSWER_EACH = ("text-classification", "image-classification")


def accounts(
    catalog: Catalog, contenders: Sequence[Contender], terms: Terms, *, kg: float | None, share: float | None
) -> list[Account]:
    """Baselines before their candidates, each compared with that of its own run."""
    found: list[Account] = []
    baselines: dict[tuple[str, str], tuple[Contender, Score]] = {}
    ordered = sorted(contenders, key=_order(contenders))
    for contender, row in zip(ordered, catalog.rows([each.at for each in ordered]), strict=True):
        run = (row.recipe, row.run_id)
        theirs = None if contender.is_baseline else baselines.get(run)
        facts = _facts(contender, row, None if theirs is None else theirs[0])
        hardware = _hardware(row)
        account = account_of(
            facts, held(hardware, kg=kg, share=share), hardware.name, terms, None if theirs is None else theirs[1]
        )
        if contender.is_baseline and (run not in baselines or baselines[run][0].faults):
            baselines[run] = (contender, account.consumer[INFERENCE])
        found.append(account)
    return found


def _order(contenders: Sequence[Contender]) -> Callable[[Contender], tuple[int, bool, int]]:
    runs = {run: at for at, run in enumerate(dict.fromkeys((each.recipe, each.run_id) for each in contenders))}
    return lambda each: (runs[(each.recipe, each.run_id)], not each.is_baseline, each.at)


def _facts(contender: Contender, row: Row, baseline: Contender | None) -> Facts:
    fault = contender.faults[0] if contender.faults else ""
    energy, seconds = _amount(row, "energy_j_per_inference", "J", fault), _per(row, "throughput_per_s", fault)
    compressing = None
    if contender.role == "candidate" and row.steps:
        compressing = Work(_amount(row, "compress_energy_j", "J", fault), _amount(row, "compress_seconds", "s", fault))
    return Facts(
        recipe=row.recipe,
        candidate=row.candidate,
        role=row.role,
        run_id=row.run_id,
        boundary=row.conditions.get("energy", "").partition(", ")[2],
        inference=Work(energy, seconds),
        tokens=Work(_amount(row, "energy_j_per_output_token", "J", fault), _per(row, "output_tokens_per_s", fault)),
        correct_share=_correct_share(row, fault),
        compressing=compressing,
        paired=_paired(contender, row, baseline),
        doubts=(*contender.faults, *contender.unsteady),
    )


def _amount(row: Row, name: str, unit: str, fault: str = "") -> Amount:
    cell = row.cells.get(name)
    if cell is None or fault:
        return absent(unit, fault or f"{name} was not recorded")
    said = {"name": name, "kind": cell.kind or "measured", "source": cell.source, "reason": cell.reason}
    return measured(cell.value, (cell.low, cell.high), unit, **said)


def _per(row: Row, name: str, fault: str) -> Amount:
    """Seconds of the hardware per unit: with a batch, its share of the call."""
    return inverse(_amount(row, name, "1/s", fault), "s")


def _correct_share(row: Row, fault: str) -> Amount:
    """Of the timed answers themselves, or of a task in which one inference is one answer."""
    right, every = _amount(row, "energy_j_per_correct", "J", fault), _amount(row, "energy_j_per_inference", "J", fault)
    if right.value and every.value and right.value >= every.value:
        low, high = _share_bounds(right, every)
        said = {"name": "the share of right answers", "kind": "measured", "source": "right among the timed outputs"}
        return measured(every.value / right.value, (low, high), "", **said)
    asked = row.conditions.get("tasks", "")
    if asked.startswith(_ONE_ANSWER_EACH) and row.metrics and row.metrics[0] == "accuracy":
        return _amount(row, "accuracy", "", fault)
    reason = row.cells["energy_j_per_correct"].reason if "energy_j_per_correct" in row.cells else ""
    return absent("", fault or reason or "no right answers were counted")


def _share_bounds(right: Amount, every: Amount) -> tuple[float | None, float | None]:
    """The interval of energy per right answer is that of the energy and of the share, added in quadrature."""
    if right.value is None or every.value is None or right.high is None or every.high is None:
        return None, None
    both, energy = right.high / right.value - 1, every.high / every.value - 1
    share, own = every.value / right.value, math.sqrt(max(0.0, both**2 - energy**2))
    return max(0.0, share * (1 - own)), max(share, min(1.0, share * (1 + own)))


def _paired(contender: Contender, row: Row, baseline: Contender | None) -> Paired:
    doubt = next(_doubts(contender, baseline), "")
    if doubt:
        return Paired(doubt, doubt)
    energy = row.against_baseline.get("energy_j_per_inference")
    rate = row.against_baseline.get("throughput_per_s")
    found = _interval(energy, "energy"), _interval(rate, "time")
    seconds = found[1] if isinstance(found[1], str) else Interval(*(1 / each for each in _turned(found[1])))
    return Paired(found[0], seconds, "" if energy is None else energy.verdict)


def _turned(found: Interval) -> tuple[float, float, float]:
    return found.value, found.high, found.low


def _interval(verdict: object, what: str) -> Interval | str:
    value, low, high = (getattr(verdict, name, None) for name in ("ratio", "low", "high"))
    if value is None or low is None or high is None or not 0 < low <= value <= high:
        return f"its {what} was not paired with its baseline's"
    return Interval(value, low, high)


def _doubts(contender: Contender, baseline: Contender | None) -> Iterator[str]:
    if baseline is None:
        yield "it is a baseline" if contender.is_baseline else "its baseline isn't here"
        return
    yield from (*contender.faults, *contender.unsteady)
    yield from (f"of its baseline: {reason}" for reason in (*baseline.faults, *baseline.unsteady))


def _hardware(row: Row) -> Hardware:
    name = row.conditions.get("hardware", "unknown")
    cores = re.search(r" on (\d+) cores", row.conditions.get("threads", ""))
    return Hardware(name.partition(" (")[0], _is_gpu(name), int(cores.group(1)) if cores else None)


def _is_gpu(hardware: str) -> bool:
    """Where a GPU did the work its name stands first, before the processor's: `1 x NVIDIA L4; AMD EPYC, x86_64`."""
    return bool(re.match(r"\d+ x |unknown GPU;", hardware))
