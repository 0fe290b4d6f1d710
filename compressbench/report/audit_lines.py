"""An audit in words: false claims first, then what could not be checked, what is really there, and which kernels ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compressbench.core.names import listed
from compressbench.core.units import humanize, three_digits
from compressbench.records.audit import Audit, ClaimAudit, DiskAudit, Finding, ModuleAudit

Line = tuple[str, str]
"""A text and its style on a terminal: bold, dim, red, green, yellow or none."""

_WIDTH = 20
_LONGEST_KERNEL = 80
_MOST_KERNELS = 12
_WORK = ("mm", "linear", "gemm", "matmul", "conv", "attention", "quant", "dot")
_DASH = "—"


def audit_lines(audit: Audit, *, full: bool = False) -> Iterator[Line]:
    """Everything that an audit found. `full` lists every module and every kernel."""
    yield _verdict(audit)
    for finding in audit.false_claims:
        yield from _finding("FALSE", finding, "red")
    for each in audit.not_checked:
        by = f"{each.step}: " if each.step else ""
        yield f"  not checked  {by}{each.what}: {each.reason}", "yellow"
    for finding in audit.notes:
        yield from _finding("note", finding, "")
    yield from _claims(audit.claims)
    yield from _weights(audit)
    yield from _left_out(audit.modules)
    yield from _kernels(audit, full)
    if full:
        yield from _modules(audit.modules)


def _verdict(audit: Audit) -> Line:
    if audit.false_claims:
        count = len(audit.false_claims)
        return f"{count} false {'claim' if count == 1 else 'claims'}", "bold red"
    if not audit.claims:
        return "Nothing was claimed.", "bold"
    if audit.not_checked:
        return f"No false claim; {len(audit.not_checked)} could not be checked.", "bold yellow"
    return "Every claim holds.", "bold green"


def _finding(mark: str, finding: Finding, style: str) -> Iterator[Line]:
    by = f"{finding.step}: " if finding.step else ""
    yield f"  {mark:<11}  {by}{finding.message} [{finding.code}]", style
    if finding.modules:
        yield f"               {listed(finding.modules)}", "dim"


def _claims(claims: Sequence[ClaimAudit]) -> Iterator[Line]:
    if claims:
        yield from _heading("claimed -> real")
    width = max((_WIDTH, *(len(each.claim.step) for each in claims)))
    for each in claims:
        claim = each.claim
        parts = [f"{each.num_matrices} matrices"]
        if claim.bits is not None:
            parts.append(f"bits {claim.bits:g} -> {_or_dash(each.bits)}")
        if claim.sparsity is not None:
            real = _DASH if each.sparsity is None else f"{100 * each.sparsity:.2f} %"
            parts.append(f"zeros {100 * claim.sparsity:g} % -> {real}")
        if claim.mask_structure is not None:
            parts.append(f"{claim.mask_structure} {_HOLDS[each.holds_structure]}")
        if claim.kernels:
            parts.append(f"kernels {listed(claim.kernels)} -> {listed(each.kernels) or 'none'}")
        flags = ("smaller", claim.is_smaller), ("faster", claim.is_faster), ("retrained", claim.is_retrained)
        yield f"  {claim.step:<{width}} {'; '.join([*parts, *(name for name, is_set in flags if is_set)])}", ""


_HOLDS = {True: "holds", False: "is broken", None: "was not checked"}


def _weights(audit: Audit) -> Iterator[Line]:
    yield from _heading("weights")
    compressed = _or_dash(audit.effective_bits_compressed)
    yield (
        f"  {'bits per weight':<{_WIDTH}} {compressed} over what was compressed, "
        f"{_or_dash(audit.effective_bits_all)} over all, scales included",
        "",
    )
    for name, use in sorted(audit.dtypes.items(), key=lambda item: -item[1].num_bytes):
        yield f"  {name:<{_WIDTH}} {humanize(use.num_bytes, 'B')} in {use.num_elements:,} elements", ""
    yield f"  {'on disk':<{_WIDTH}} {_disk(audit.disk)}", ""


def _disk(disk: DiskAudit) -> str:
    implied = _DASH if disk.implied_bytes is None else humanize(disk.implied_bytes, "B")
    if disk.disk_bytes is None:
        return f"{_DASH} (not measured); the bits imply {implied}"
    ratio = "" if disk.ratio is None else f", {three_digits(disk.ratio)} times that"
    return f"{humanize(disk.disk_bytes, 'B')}; the bits imply {implied}{ratio}"


def _left_out(modules: Sequence[ModuleAudit]) -> Iterator[Line]:
    reasons: dict[str, list[str]] = {}
    for module in modules:
        if module.left_out:
            reasons.setdefault(module.left_out, []).append(module.name)
    if reasons:
        yield from _heading("left out")
    for reason, names in reasons.items():
        yield f"  {listed(names)}: {reason}", ""


def _kernels(audit: Audit, full: bool) -> Iterator[Line]:
    yield from _heading("kernels that ran in one call")
    wanted = [kernel for each in audit.claims for kernel in each.claim.kernels]
    shown = [name for name in audit.kernels if full or any(part in name for part in (*_WORK, *wanted))]
    for name in shown if full else shown[:_MOST_KERNELS]:
        yield f"  {audit.kernels[name]:>6} x {name[:_LONGEST_KERNEL]}", ""
    hidden = len(audit.kernels) - min(len(shown), len(audit.kernels) if full else _MOST_KERNELS)
    if not audit.kernels:
        yield "  the profiler saw none", "dim"
    elif hidden:
        yield f"  and {hidden} others", "dim"


def _modules(modules: Sequence[ModuleAudit]) -> Iterator[Line]:
    yield from _heading("modules")
    width = max((len(module.name) for module in modules), default=0)
    for module in modules:
        zeros = _DASH if module.sparsity is None else f"{100 * module.sparsity:.1f} % zeros"
        ends = [", ".join(module.steps), module.unknown, f"tied to {module.tied_to}" if module.tied_to else ""]
        facts = f"{module.kind} {module.dtype}, {_or_dash(module.bits)} bits, {zeros}"
        yield "; ".join([f"  {module.name:<{width}}  {facts}", *filter(None, ends)]), ""


def _heading(text: str) -> Iterator[Line]:
    yield "", ""
    yield text, "bold"


def _or_dash(value: float | None) -> str:
    return _DASH if value is None else three_digits(value)
