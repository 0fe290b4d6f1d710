"""The whole line, on one page: a recipe in, records out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

from compressbench.bench import Bench
from compressbench.core.errors import CellError
from compressbench.core.progress import Progress, SilentProgress
from compressbench.core.reading import Kind
from compressbench.data.data_root import reading_below
from compressbench.measure.instruments import opened, require_energy
from compressbench.measure.remote import only_what_sees
from compressbench.plan import Cell, plan_file
from compressbench.records.record import Record
from compressbench.records.store import RecordStore
from compressbench.report.policy import require_energy_of, why_no_energy


def run_recipe(
    path: str | Path,
    out: str | Path,
    *,
    progress: Progress | None = None,
    resume: bool = False,
    save: bool = False,
    needs_energy: Kind | None = None,
    data_root: str | Path | None = None,
) -> Iterator[Record]:
    """Run a recipe file and yield each record as soon as it is written under `out`: the baseline, then the candidates.

    With `resume`, cells with a good record of the same key in `out` are kept (the baseline runs whenever a candidate
    does), and training goes on from its last checkpoint. `save` keeps every candidate under `out`/artefacts and compares
    it, loaded again. `needs_energy` is the least that joules must be, `data_root` the folder of local copies of data.
    Raises InputError before it measures, MissingMeasurementError if a cell lacks that energy, CellError if the baseline
    fails.
    """
    plan, store = plan_file(str(path), data_root=data_root), RecordStore(Path(out))
    done = store.keys_to_keep(lambda record: not why_no_energy(record, needs_energy), resume=resume)
    candidates = [cell for cell in plan.cells[1:] if cell.key not in done]
    if candidates or plan.baseline.key not in done:
        with reading_below(plan.data_root):
            bench = Bench.load(plan, store, progress or SilentProgress(), saves=save)
        yield from require_energy_of(_run(bench, [plan.baseline, *candidates], needs_energy), needs_energy)


def _run(bench: Bench, cells: list[Cell], needs_energy: Kind | None) -> Generator[Record]:
    plan, store, progress = bench.plan, bench.store, bench.progress
    with opened(plan.meters, bench.device, progress) as meters, progress.bar("recipe", len(cells)) as bar:
        require_energy(plan.meters, only_what_sees(meters, [cell.runtime.value for cell in cells]), needs_energy)
        progress.say(plan.schedule.announcement(meters.min_window_s, len(cells), meters.lead_tick_s))
        for number, cell in enumerate(cells, start=1):
            progress.say(f"{cell.name} ({number} of {len(cells)})")
            with reading_below(plan.data_root):
                store.append(record := bench.run(cell, meters))
            bar.advance()
            yield record
            if cell is plan.baseline and record.failure is not None:
                raise CellError("the baseline failed, so nothing can be compared with it", got=record.failure.message)
