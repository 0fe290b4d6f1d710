"""The checks that no single claim owns: what changed though nothing says so, ties, files, and how layers compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from compressbench.measure.claim_checks import Case, Outcome, covers, is_one_of, some
from compressbench.models.kernels import FLOAT_PRODUCTS
from compressbench.records.audit import Code, DiskAudit, Finding, NotChecked

# a model cast as a whole: no module needs a reason of its own
_HALF = 16


def check_model(cases: Sequence[Case], disk: DiskAudit) -> Outcome:
    """Nothing is checked where nothing was claimed."""
    if cases:
        for check in _CHECKS:
            yield from check(cases)
        yield from _disk(cases, disk)


def _unclaimed_changes(cases: Sequence[Case]) -> Outcome:
    original = cases[0].original
    if original is None:
        yield NotChecked(what="what changed besides the claims", reason="there is no baseline to compare with")
        return
    is_retrained, is_smaller = _any(cases, "is_retrained"), _any(cases, "is_smaller")
    free = {name: change for name, change in original.changes.by_module.items() if not _is_claimed(cases, name)}
    removed = [name for name in original.changes.removed if not _is_claimed(cases, name)]

    def named(*changes: str) -> list[str]:
        return [name for name, change in free.items() if change in changes]

    if named("unknown"):
        yield NotChecked(what="what changed besides the claims", reason=f"unreadable: {', '.join(named('unknown'))}")
    total = [*original.changes.by_module, *original.changes.removed]

    def finding(code: Code, modules: list[str], what: str, *, is_false: bool = True) -> Iterator[Finding]:
        if modules:
            message = f"{some(modules, total)} {what}, and no claim names them"
            yield Finding(code=code, message=message, is_false_claim=is_false, modules=tuple(modules))

    values = [] if is_retrained else named("values")
    yield from finding("changed-unclaimed", values, "have other values than the baseline's")
    yield from finding("changed-unclaimed", named("form"), "store something else than the baseline's")
    resized: Code = "resized-unclaimed" if is_smaller else "changed-unclaimed"
    yield from finding(resized, named("shape"), "have another shape than the baseline's", is_false=not is_smaller)
    yield from finding("added-unclaimed", named("added"), "are not in the baseline", is_false=not is_smaller)
    yield from finding("removed-unclaimed", [] if is_smaller else removed, "are in the baseline alone")
    rounded = [] if any(case.claim.bits == _HALF for case in cases) else named("rounded")
    yield from finding("rounded-unclaimed", rounded, "are the baseline's in another dtype", is_false=False)


def _ties(cases: Sequence[Case]) -> Outcome:
    original = cases[0].original
    for group in () if original is None else original.changes.untied:
        modules = tuple(name.rpartition(".")[0] for name in group)
        is_claimed = any(_is_claimed(cases, module) for module in modules)
        yield Finding(
            code="untied-as-claimed" if is_claimed else "untied",
            message=f"{' and '.join(group)} are one tensor in the baseline and no longer here",
            is_false_claim=not is_claimed,
            modules=modules,
        )


def _dequantizing(cases: Sequence[Case]) -> Outcome:
    """Layers that store codes and multiply floats, with none of the kernels that they claim."""
    facts, trace = cases[0].facts, cases[0].trace
    packed = [
        each.row.name
        for each in facts.modules
        if each.is_linear and (not each.is_floating or each.num_codes < (each.row.num_weights or 0))
    ]
    found = []
    for name in packed:
        wanted = tuple(kernel for case in cases if covers(case.claim, name) for kernel in case.claim.kernels)
        ran = trace.by_module.get(name, frozenset())
        if ran & FLOAT_PRODUCTS and not any(is_one_of(each, wanted) for each in ran):
            found.append(name)
    if found:
        message = f"{some(found, packed)} with codes dequantize in every call: that saves memory, not time"
        yield Finding(code="dequantizes-every-call", message=message, is_false_claim=False, modules=tuple(found))


def _unmentioned(cases: Sequence[Case]) -> Outcome:
    """Linear modules that no step worked on and none says why it left them out."""
    if not any(case.claim.sparsity is not None or (case.claim.bits or _HALF) < _HALF for case in cases):
        return
    linears = [each.row.name for each in cases[0].facts.modules if each.is_linear]
    reasons = {name for case in cases for name in case.claim.left_out}
    found = [name for name in linears if not _is_claimed(cases, name) and not _is_below(name, reasons)]
    if found:
        message = f"{some(found, linears)} that are linear were left as they are without a reason"
        yield Finding(code="unmentioned", message=message, is_false_claim=False, modules=tuple(found))


_CHECKS: tuple[Callable[[Sequence[Case]], Outcome], ...] = (_unclaimed_changes, _ties, _dequantizing, _unmentioned)


def _disk(cases: Sequence[Case], disk: DiskAudit) -> Outcome:
    if disk.disk_bytes is None or disk.implied_bytes is None:
        yield NotChecked(what="bytes on disk", reason="the files or the model's tensors were not counted")
        return
    difference = disk.disk_bytes - disk.implied_bytes
    sizes = f"the files have {disk.disk_bytes:,} bytes, the stored tensors imply {disk.implied_bytes:,}"
    if difference > disk.tolerance_bytes:
        claims_size = _any(cases, "is_smaller") or any(case.claim.bits is not None for case in cases)
        yield Finding(code="disk-above-bits", message=sizes, is_false_claim=claims_size)
    elif difference < -disk.tolerance_bytes:
        yield Finding(code="disk-below-bits", message=f"{sizes}: are all of them saved?", is_false_claim=False)


def _any(cases: Sequence[Case], flag: str) -> bool:
    return any(getattr(case.claim, flag) for case in cases)


def _is_claimed(cases: Sequence[Case], name: str) -> bool:
    return any(covers(case.claim, name) for case in cases)


def _is_below(name: str, names: set[str]) -> bool:
    return any(each == name or name.startswith(f"{each}.") for each in names)
