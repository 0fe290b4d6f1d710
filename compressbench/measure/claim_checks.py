"""The checks of one step's claim against what is really there: each says what is false, and what it could not check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import NamedTuple

from compressbench.core.protocols import Claim
from compressbench.models.against_original import Changes
from compressbench.models.audit import ModelFacts, Weighed
from compressbench.models.kernels import KernelTrace
from compressbench.records.audit import ClaimAudit, Code, Finding, NotChecked

Outcome = Iterator[Finding | NotChecked]

# rows of packed codes end at whole bytes, in at most three planes
_PADDING_BITS_PER_ROW = 24
_TOLERANCE_OF_BITS = 0.02
_NO_BASELINE = "there is no baseline to compare with"


class Evidence(NamedTuple):
    """What was measured elsewhere; None where it was not.

    `disk_bytes` are those of the weights' files. `latency_verdict` is the paired one against the baseline: faster,
    slower, same or undecided.
    """

    disk_bytes: int | None = None
    baseline_disk_bytes: int | None = None
    latency_verdict: str | None = None


class Original(NamedTuple):
    """The baseline that the candidate was made from: what differs from it, and what it stores (None: it can't be seen)."""

    changes: Changes
    num_bytes: int | None


class Case(NamedTuple):
    """A claim and everything that can speak for or against it. `names` are all modules of the candidate."""

    claim: Claim
    facts: ModelFacts
    trace: KernelTrace
    names: frozenset[str]
    original: Original | None
    evidence: Evidence

    @property
    def matrices(self) -> list[Weighed]:
        """The claimed modules that hold a matrix: norms that took up a scale have no bits to speak of."""
        return [each for each in self.facts.modules if each.is_matrix and covers(self.claim, each.row.name)]

    def false(self, code: Code, message: str, modules: list[str] | None = None) -> Finding:
        return Finding(
            code=code, message=message, is_false_claim=True, step=self.claim.step, modules=tuple(modules or ())
        )

    def not_checked(self, what: str, reason: str) -> NotChecked:
        return NotChecked(what=what, reason=reason, step=self.claim.step)


def covers(claim: Claim, name: str) -> bool:
    """Whether a claim names this module or one above it; "" is the whole model."""
    return any(each in ("", name) or name.startswith(f"{each}.") for each in claim.modules)


def check_claim(case: Case) -> Outcome:
    for check in _CHECKS:
        yield from check(case)


def realised(case: Case) -> ClaimAudit:
    """The claim with what is really there beside it."""
    claim, matrices = case.claim, case.matrices
    return ClaimAudit(
        claim=claim,
        num_matrices=len(matrices),
        bits=_mean_bits(matrices),
        sparsity=None if claim.sparsity is None else _sparsity_of(matrices),
        holds_structure=_holds_structure(case),
        kernels=tuple(name for name in case.trace.counts if is_one_of(name, claim.kernels)),
    )


def _modules(case: Case) -> Outcome:
    claim = case.claim
    if not claim.modules:
        if not claim.is_retrained:
            yield case.false("no-modules", "it worked on no module at all")
        return
    missing = [name for name in claim.modules if name not in case.names]
    if missing and claim.is_smaller and case.original is None:
        yield case.not_checked("modules that were removed", _NO_BASELINE)
        return
    missing = [name for name in missing if not (claim.is_smaller and _was_there(case, name))]
    if missing:
        yield case.false(
            "module-missing", f"{some(missing, claim.modules)} that it names are not in the model", missing
        )
    elif _is_about_matrices(claim) and not case.matrices:
        yield case.false("no-modules", "none of the modules it names holds a weight matrix")


def _bits(case: Case) -> Outcome:
    if case.claim.bits is None:
        return
    claimed, matrices = case.claim.bits, case.matrices
    wide = [each for each in matrices if each.code_bits is not None and each.code_bits > _most_bits(each, claimed)]
    floating, packed = [each for each in wide if each.is_floating], [each for each in wide if not each.is_floating]
    if floating:
        message = f"{some(floating, matrices)} are still {floating[0].row.dtype} where {claimed:g} bits are claimed"
        yield case.false("stayed-full-precision", message, _names(floating))
    copies = [each for each in matrices if each.keeps_floats]
    if copies:
        message = f"{some(copies, matrices)} store codes and keep their weights in full precision besides"
        yield case.false("stayed-full-precision", message, _names(copies))
    if packed:
        most = max(each.code_bits or 0.0 for each in packed)
        message = f"{some(packed, matrices)} keep {most:.3g} bits per weight where {claimed:g} are claimed"
        yield case.false("wider-than-claimed", message, _names(packed))
    unknown = [each for each in matrices if each.code_bits is None]
    if unknown:
        yield case.not_checked("bits", f"{some(unknown, matrices)} can't be counted: {_reason(unknown)}")


def _most_bits(weighed: Weighed, claimed: float) -> float:
    padding = _PADDING_BITS_PER_ROW / weighed.num_columns if weighed.num_columns and not weighed.is_floating else 0.0
    return claimed * (1 + _TOLERANCE_OF_BITS) + padding


def _sparsity(case: Case) -> Outcome:
    """One weight per row may lack: methods round the number of zeros in a row, a matrix or a model down."""
    claimed, matrices = case.claim.sparsity, case.matrices
    if claimed is None or not matrices:
        return
    unknown = [each for each in matrices if each.num_zeros is None]
    if unknown:
        yield case.not_checked("sparsity", f"{some(unknown, matrices)} can't be read: {_reason(unknown)}")
        return
    zeros = sum(each.num_zeros or 0 for each in matrices)
    least = claimed * sum(each.num_values for each in matrices) - sum(each.num_rows for each in matrices)
    if zeros < least:
        dense = [each for each in matrices if (each.num_zeros or 0) < claimed * each.num_values - each.num_rows]
        yield case.false(
            "less-sparse-than-claimed",
            f"{100 * (_sparsity_of(matrices) or 0.0):.2f} % of the weights are zero where {100 * claimed:g} % are claimed",
            _names(dense),
        )


def _structure(case: Case) -> Outcome:
    structure = case.claim.mask_structure
    if structure in (None, "unstructured"):
        return
    unknown = [each for each in case.matrices if each.broken_groups.get(structure) is None]
    if unknown:
        reason = _reason(unknown) or "only n:m structures of matrices can be"
        yield case.not_checked("mask structure", f"{structure} of {some(unknown, case.matrices)} wasn't: {reason}")
    broken = [each for each in case.matrices if each.broken_groups.get(structure)]
    if broken:
        groups = sum(each.broken_groups[structure] or 0 for each in broken)
        yield case.false(
            "mask-structure-broken",
            f"{some(broken, case.matrices)} have more non-zeros than {structure} allows, in {groups:,} aligned groups",
            _names(broken),
        )


def _size(case: Case) -> Outcome:
    if not case.claim.is_smaller:
        return
    evidence, ours = case.evidence, case.facts.num_bytes
    theirs = None if case.original is None else case.original.num_bytes
    pairs = {"weights": (ours, theirs), "files": (evidence.disk_bytes, evidence.baseline_disk_bytes)}
    for what, (now, before) in pairs.items():
        if now is None or before is None:
            yield case.not_checked(f"smaller {what}", "the bytes of both sides are needed and were not counted")
        elif now >= before:
            yield case.false("not-smaller", f"the {what} take {now:,} bytes, the baseline's {before:,}")
    if case.claim.sparsity is not None and case.claim.bits is None:
        dense = [each for each in case.matrices if each.num_codes >= (each.row.num_weights or 0) > 0]
        if dense:
            message = f"the zeros of {some(dense, case.matrices)} are stored like any other value"
            yield case.false("zeros-are-stored", message, _names(dense))


def _speed(case: Case) -> Outcome:
    if not case.claim.is_faster:
        return
    verdict = case.evidence.latency_verdict
    if verdict is None:
        yield case.not_checked("faster", "there is no paired verdict on the latency")
    elif verdict != "faster":
        yield case.false("not-faster", f"measured against the baseline in the same run, its speed is: {verdict}")


def _kernels(case: Case) -> Outcome:
    wanted = case.claim.kernels
    if not wanted:
        return
    if not case.trace.counts:
        yield case.not_checked("kernels", "PyTorch's profiler sees nothing of this runtime")
        return
    if not any(is_one_of(name, wanted) for name in case.trace.counts):
        yield case.false("kernel-did-not-run", f"none of {', '.join(wanted)} ran")
        return
    seen = {each.row.name: case.trace.by_module.get(each.row.name) for each in case.matrices if each.is_linear}
    called = {name: names for name, names in seen.items() if names is not None}
    fallen = [name for name, names in called.items() if not any(is_one_of(each, wanted) for each in names)]
    if fallen:
        yield case.false("fell-back", f"{some(fallen, called)} ran without {' or '.join(wanted)}", fallen)
    missed = seen.keys() - called.keys()
    if missed:
        yield case.not_checked("kernels of each module", f"{some(missed, seen)} were not called in that pass")


def _effect(case: Case) -> Outcome:
    """A step that claims nothing countable must at least have changed something."""
    claim = case.claim
    if _is_about_matrices(claim) or claim.is_smaller or not (claim.modules or claim.is_retrained):
        return
    if case.original is None:
        yield case.not_checked("whether anything changed", _NO_BASELINE)
        return
    changes = case.original.changes.by_module
    found = [name for name in changes if covers(claim, name) or (claim.is_retrained and not claim.modules)]
    kinds = {changes[name] for name in found}
    if not kinds <= {"same", "moved", "rounded", "unknown"}:
        return
    if "unknown" in kinds:
        yield case.not_checked("whether anything changed", "some of its modules can't be read")
    elif found:
        yield case.false("nothing-changed", "every value it is said to have worked on is the baseline's", found)


_CHECKS: tuple[Callable[[Case], Outcome], ...] = (
    _modules, _bits, _sparsity, _structure, _size, _speed, _kernels, _effect,
)  # fmt: skip


def _is_about_matrices(claim: Claim) -> bool:
    return any(each is not None for each in (claim.bits, claim.sparsity, claim.mask_structure))


def _was_there(case: Case, name: str) -> bool:
    removed = [] if case.original is None else case.original.changes.removed
    return any(each == name or each.startswith(f"{name}.") for each in removed)


def is_one_of(name: str, kernels: tuple[str, ...]) -> bool:
    return any(kernel in name for kernel in kernels)


def _holds_structure(case: Case) -> bool | None:
    structure = case.claim.mask_structure
    counts = [each.broken_groups.get(structure or "") for each in case.matrices]
    return None if structure is None or not counts or None in counts else not any(counts)


def _mean_bits(matrices: list[Weighed]) -> float | None:
    if not matrices or any(each.code_bits is None for each in matrices):
        return None
    count = sum(each.row.num_weights or 0 for each in matrices)
    return sum((each.code_bits or 0.0) * (each.row.num_weights or 0) for each in matrices) / count


def _sparsity_of(matrices: list[Weighed]) -> float | None:
    if not matrices or any(each.num_zeros is None for each in matrices):
        return None
    return sum(each.num_zeros or 0 for each in matrices) / sum(each.num_values for each in matrices)


def some(found: Sized, all_of_them: Sized) -> str:
    return f"{len(found)} of {len(all_of_them)} modules"


def _names(found: list[Weighed]) -> list[str]:
    return [each.row.name for each in found]


def _reason(unknown: list[Weighed]) -> str:
    return next((each.row.unknown for each in unknown if each.row.unknown), "")
