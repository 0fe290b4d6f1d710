"""How numbers and verdicts read in a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from compressbench.core.names import listed
from compressbench.core.units import grouped, humanize, significant, three_digits
from compressbench.report.own_baseline import NOTICEABLE, Baselines, own_value, ranges, together
from compressbench.report.quality_words import WORST, quality_lines, quality_notes, stratum_lines, worst_stratum
from compressbench.report.rows import NOT_ASKED, Cell, Row
from compressbench.report.speed_numbers import NO_GENERATION, NO_SERVER
from compressbench.report.verdict import Verdict

DASH = "—"
TITLES = {
    WORST: "worst stratum",
    "latency_p50_s": "latency p50",
    "latency_p95_s": "latency p95",
    "latency_p99_s": "latency p99",
    "ttft_p50_s": "time to first token p50",
    "ttft_p99_s": "time to first token p99",
    "tpot_p50_s": "time per output token p50",
    "itl_p50_s": "gap between tokens p50",
    "itl_p99_s": "gap between tokens p99",
    "throughput_per_s": "throughput",
    "output_tokens_per_s": "output tokens per second",
    "max_rate_per_s": "highest rate within the limit",
    "energy_j_per_inference": "energy per inference",
    "energy_net_j_per_inference": "energy per inference above idle",
    "energy_j_per_output_token": "energy per output token",
    "energy_j_per_total_token": "energy per token in and out",
    "energy_j_per_correct": "energy per correct answer",
    "energy_prefill_j_per_inference": "energy of prefill",
    "energy_decode_j_per_output_token": "energy of decode per token",
    "energy_wh_per_1000_queries": "energy per 1000 queries",
    "mbu": "memory bandwidth used",
    "mfu": "matrix rate used",
    "peak_memory_bytes": "peak memory",
    "peak_reserved_memory_bytes": "peak memory reserved",
    "weights_memory_bytes": "weights in memory",
    "kv_cache_memory_bytes": "KV cache",
    "disk_bytes": "size on disk",
    "num_parameters": "parameters",
    "sparsity": "zeros",
    "effective_bits": "bits per weight",
    "load_seconds": "loading took",
    "first_call_seconds": "first call took",
    "compress_seconds": "compressing took",
    "compress_energy_j": "compressing used",
    "compress_peak_memory_bytes": "memory to compress",
    "resident_memory_bytes": "memory of a process",
    "export_seconds": "exporting took",
    "compile_seconds": "compiling took",
    "open_seconds": "opening took",
}
SHORT = ("peak_memory_bytes", "disk_bytes", "sparsity")
_SPEEDS = {"offline": ("throughput_per_s",), "server": ("max_rate_per_s", "latency_p50_s")}
_OF_UNDECIDED = (
    "An undecided or same latency shows the interval of its speed, in times the baseline's; an energy or a rate that of "
    "its ratio to the baseline's."
)
_MARKS = {"estimated": " (est.)", "modelled": " (model)"}
_RATES = {"throughput_per_s": "samples", "output_tokens_per_s": "tokens", "max_rate_per_s": "requests"}
_SHARES = {"sparsity", "mbu", "mfu"}


def title(name: str) -> str:
    """`latency p50`; `perplexity (tinyshakespeare)` of a metric that stands twice and is told apart by its data."""
    metric, _, place = name.partition("@")
    return f"{metric} ({place.rpartition(':')[2] or place})" if place else TITLES.get(name, name)


def columns(rows: Sequence[Row], *, full: bool = False) -> list[str]:
    """The names to show: the rows' metrics, then costs; `full` shows every name."""
    metrics = [*worst_stratum(rows), *dict.fromkeys(name for row in rows for name in row.metrics)]
    if full:
        return [*metrics, *(name for name in TITLES if _is_asked_of_any(rows, name))]
    speeds = dict.fromkeys(name for row in rows for name in _SPEEDS.get(row.scenario, ("latency_p50_s",)))
    energy = "energy_j_per_inference"
    if _is_there(rows, "ttft_p50_s"):
        speeds |= dict.fromkeys(("ttft_p50_s", "tpot_p50_s", "output_tokens_per_s"))
        energy = "energy_j_per_output_token"
        if _is_there(rows, "mbu"):  # it is what limits a decode step
            speeds["mbu"] = None
    return [*metrics, *(name for name in (*speeds, energy, *SHORT) if _is_asked_of_any(rows, name))]


def _is_there(rows: Sequence[Row], name: str) -> bool:
    return any(name in row.cells and row.cells[name].value is not None for row in rows)


def cell_lines(row: Row, name: str, baselines: Baselines | None = None) -> list[str]:
    """The lines of one cell: the value, then what may be claimed of it against the baseline. Beside `baselines`, the rows
    that a reader sees, the one that ran beside this row stands before an arrow where its value is another.
    """
    if name == WORST:
        return stratum_lines(row)
    cell, verdict = row.cells.get(name), row.against_baseline.get(name)
    value = "" if cell is None else value_text(name, cell)
    own = None if cell is None or baselines is None else own_value(row, name, baselines)
    if own is not None and cell is not None:
        value = together(value_text(name, cell.model_copy(update={"value": own, "kind": ""})), value)
    return [value, *(quality_lines(row, name) if name in row.metrics else claim_lines(name, verdict))]


def verdict_of(row: Row, name: str) -> Verdict | None:
    """What colours a cell."""
    if name == WORST:
        return row.strata[0].verdict if row.strata else None
    return row.against_baseline.get(name)


def _is_asked_of_any(rows: Sequence[Row], name: str) -> bool:
    """A row that failed says nothing of what was asked, unless all did."""
    asked = [row for row in rows if row.status == "ok"] or rows
    return any(_is_asked(row.cells.get(name)) for row in asked)


def _is_asked(cell: Cell | None) -> bool:
    """Whether a number could be there: no times of tokens where nothing is generated, no rates without a server, none of
    which the recipe has no meter.
    """
    return cell is not None and cell.reason not in (NO_GENERATION, NO_SERVER) and not cell.reason.startswith(NOT_ASKED)


def value_text(name: str, cell: Cell) -> str:
    """`93.05 %`, `4.21 ms`, `12.3 mJ (est.)`, or a dash."""
    if cell.value is None:
        return DASH
    if cell.unit == "fraction":
        text = f"{100 * cell.value:.2f} %"
    elif name in _SHARES:
        text = f"{100 * cell.value:.1f} %"
    elif name == "num_parameters":
        text = humanize(cell.value, "B").replace("B", "").strip()
    elif name == "effective_bits":
        text = f"{cell.value:.2f}"
    elif name in _RATES:
        text = f"{grouped(cell.value)} {_RATES[name]}/s"
    else:
        text = humanize(cell.value, cell.unit) if cell.unit else significant(cell.value, 4)
    return text + _MARKS.get(cell.kind, "")


def claim_lines(name: str, verdict: Verdict | None) -> list[str]:
    """What is claimed of a cost, and its interval: `2.51x faster`, `[2.44, 2.58]`; nothing where nothing is claimed."""
    if verdict is None:
        return []
    if verdict.ratio is None or verdict.low is None or verdict.high is None:
        return [verdict.verdict]
    if verdict.low == verdict.high:
        return ["same" if verdict.verdict == "same" else f"{three_digits(verdict.ratio)}x"]
    # a time ratio of 0.4 is read as 2.5 times faster, and one of 1.25 as 1.25 times slower
    is_speed = verdict.verdict != "slower" and _is_time(name)
    ratio, low, high = (
        (1 / verdict.ratio, 1 / verdict.high, 1 / verdict.low)
        if is_speed
        else (verdict.ratio, verdict.low, verdict.high)
    )
    # around 1, and near 0, two decimals would show nothing
    digits = 3 if (low > 0.9 and high < 1.1) or ratio < 0.1 else 2
    times = f"{ratio:.{digits}f}x"
    claims = {"lower": times, "higher": times, "faster": f"{times} faster", "slower": f"{times} slower"}
    return [claims.get(verdict.verdict, verdict.verdict), f"[{low:.{digits}f}, {high:.{digits}f}]"]


def _is_time(name: str) -> bool:
    return name.endswith("_s") and not name.endswith("_per_s")


def footnotes(rows: Iterable[Row], names: Sequence[str]) -> list[str]:
    """Which claims are false, why a dash is a dash, what the marks mean, how big the noise is; equal reasons stand once."""
    rows = list(rows)
    cells = [(row, name, row.cells[name]) for row in rows for name in names if name in row.cells]
    verdicts = [
        (row, name, row.against_baseline[name]) for row in rows for name in names if name in row.against_baseline
    ]
    lines = [f"FALSE CLAIM {row.candidate}: {claim}" for row in rows for claim in row.false_claims or ()]
    lines += _grouped("NOT RANKED", ((reason, row.candidate) for row in rows for reason in row.not_rankable))
    lines += _grouped("mind", ((reason, row.candidate) for row in rows for reason in row.warnings))
    lines += _grouped(DASH, ((cell.reason, _place(row, name)) for row, name, cell in cells if cell.value is None))
    for mark in ("equivalent", "undecided"):
        told = [(row, name, v) for row, name, v in verdicts if v.reason and _mark(v) == mark]
        lines += _grouped(mark, ((v.reason, _place(row, name)) for row, name, v in told))
    for kind, mark in (("estimated", "est."), ("modelled", "model")):
        sources = sorted({cell.source for _, _, cell in cells if cell.kind == kind})
        lines += [f"{mark}: {kind}, not measured; {source}" for source in sources]
    lines += quality_notes(rows)
    speed = [verdict for _, name, verdict in verdicts if name in ("latency_p50_s", "throughput_per_s")]
    if any(verdict.verdict in ("undecided", "same") and verdict.low != verdict.high for _, _, verdict in verdicts):
        lines.append(_OF_UNDECIDED)
    lines += ranges_note(ranges(rows, names), {name: cell.unit for _, name, cell in cells})
    noises = [verdict.noise for verdict in speed if verdict.noise is not None]
    if noises:
        lines.append(
            f"Intervals are 95 %, paired with the baseline of the same run. Against itself the baseline "
            f"differs by up to {100 * max(noises):.1f} % in speed; smaller effects are undecided."
        )
    return lines


def ranges_note(found: Mapping[str, tuple[float, float]], units: Mapping[str, str]) -> list[str]:
    """What is told of baselines that ran again beside each candidate; nothing where they are as the baseline's row says."""
    if not found:
        return []
    texts = {
        name: [value_text(name, Cell(value=value, unit=units.get(name, ""))) for value in bounds]
        for name, bounds in found.items()
    }
    parts = ", ".join(f"{title(name)} {together(low, high, ' to ')}" for name, (low, high) in texts.items())
    return [
        f"The baseline was measured again beside every candidate: {parts}. Each ratio is against the one that ran beside "
        f"it; one that is more than {100 * NOTICEABLE:.0f} % off the baseline's row stands before an arrow."
    ]


def _mark(verdict: Verdict) -> str:
    return "equivalent" if verdict.verdict == "equivalent" else "undecided"


def _place(row: Row, name: str) -> str:
    return f"{row.candidate}: {title(name)}" if row.status == "ok" else row.candidate


def _grouped(mark: str, reasons: Iterable[tuple[str, str]]) -> list[str]:
    places: dict[str, dict[str, None]] = {}
    for reason, place in reasons:
        places.setdefault(reason, {})[place] = None
    return [f"{mark} {listed(list(found))}: {reason}" for reason, found in places.items()]
