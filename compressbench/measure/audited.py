"""The audit of one cell: what the model stores, what the files weigh and which kernels ran, held against its claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compressbench.core.deploying import KernelUse, SaysWhatItRuns
from compressbench.core.protocols import Batch, Claim, Session
from compressbench.measure.claim_checks import Case, Evidence, Original, check_claim, covers, realised
from compressbench.measure.engine_checks import with_deployment
from compressbench.measure.model_checks import check_model
from compressbench.models.against_original import compare_models
from compressbench.models.audit import ModelFacts, Weighed, stored_bytes, weigh_model
from compressbench.models.handle import ModelHandle
from compressbench.models.kernels import KernelTrace, trace_kernels
from compressbench.records.audit import Audit, DiskAudit, Finding, ModuleAudit, NotChecked
from compressbench.records.deployment import Deployment

if TYPE_CHECKING:
    from torch import nn

_TOLERANCE = 0.02
_BYTES_OF_CONFIG = 16 * 1024
_BYTES_OF_A_HEADER_ENTRY = 256


def audit(
    handle: ModelHandle,
    baseline: ModelHandle | None,
    session: Session,
    batch: Batch,
    evidence: Evidence,
    deployment: Deployment | None = None,
) -> Audit:
    """Look at a candidate, or at the baseline itself (`baseline` None), and check what its steps claim.

    The session is called once, under its profiler; call it before, so that it is warm. `deployment` is what it runs if
    that is not the handle's modules.
    """
    claims = handle.claims
    facts = weigh_model(handle.model, lambda name: _structures(name, claims))
    linears = {weighed.row.name: weighed.module for weighed in facts.modules if weighed.is_linear}
    trace, used = _trace(session, batch, linears)
    names = frozenset(name for name, _ in handle.model.named_modules(remove_duplicate=False))
    original = _original(handle, baseline) if claims else None
    cases = [Case(claim, facts, trace, names, original, evidence) for claim in claims]
    # an engine's files hold more than tensors, and in its own formats
    disk = _disk(facts, None if deployment and deployment.num_files_bytes else evidence.disk_bytes)
    found = _audit(facts, cases, disk, trace.counts)
    return found if deployment is None else with_deployment(found, deployment, used)


def _trace(session: Session, batch: Batch, linears: Mapping[str, nn.Module]) -> tuple[KernelTrace, KernelUse | None]:
    """What ran in one call, by the engine's own profiler where it has one, else by PyTorch's."""
    if not isinstance(session, SaysWhatItRuns):
        return trace_kernels(session, batch, linears), None
    used = session.kernels(batch)
    return KernelTrace(dict(used.counts) if used else {}, {}), used


def _original(handle: ModelHandle, baseline: ModelHandle | None) -> Original | None:
    if baseline is None:
        return None
    return Original(compare_models(handle.model, baseline.model), stored_bytes(baseline.model))


def _audit(facts: ModelFacts, cases: Sequence[Case], disk: DiskAudit, kernels: dict[str, int]) -> Audit:
    outcome = [*(each for case in cases for each in check_claim(case)), *check_model(cases, disk)]
    if facts.unknown:
        outcome.append(NotChecked(what="bits of the whole model", reason=facts.unknown))
    findings = [each for each in outcome if isinstance(each, Finding)]
    claims = [case.claim for case in cases]
    compressed = [each for each in facts.modules if each.is_matrix and _steps_on(each.row.name, claims)]
    return Audit(
        modules=tuple(row for row in (_row(each, claims) for each in facts.modules) if row is not None),
        num_parameters=facts.num_parameters,
        effective_bits_compressed=_bits_over(compressed),
        effective_bits_all=8 * facts.num_bytes / facts.num_parameters
        if facts.num_bytes is not None and facts.num_parameters
        else None,
        dtypes=facts.dtypes,
        disk=disk,
        claims=tuple(realised(case) for case in cases),
        kernels=kernels,
        findings=tuple(sorted(findings, key=lambda finding: not finding.is_false_claim)),
        not_checked=tuple(each for each in outcome if isinstance(each, NotChecked)),
        claim_ok=not any(finding.is_false_claim for finding in findings),
    )


def _row(weighed: Weighed, claims: Sequence[Claim]) -> ModuleAudit | None:
    """The row of a module that holds a matrix or that a claim speaks of; None for norms and the like."""
    name = weighed.row.name
    steps = _steps_on(name, claims)
    left_out = "; ".join(
        f"{claim.step}: {reason}"
        for claim in claims
        for each, reason in claim.left_out.items()
        if name == each or name.startswith(f"{each}.")
    )
    if not (weighed.is_matrix or steps or left_out):
        return None
    return weighed.row.model_copy(update={"steps": steps, "left_out": left_out})


def _steps_on(name: str, claims: Sequence[Claim]) -> tuple[str, ...]:
    return tuple(claim.step for claim in claims if covers(claim, name))


def _structures(name: str, claims: Sequence[Claim]) -> set[str]:
    return {claim.mask_structure for claim in claims if claim.mask_structure and covers(claim, name)}


def _bits_over(matrices: Sequence[Weighed]) -> float | None:
    """Stored bits per weight over these, biases apart; None if there are none or one can't be counted."""
    rows = [each.row for each in matrices]
    if not rows or any(row.stored_bytes is None or not row.num_weights for row in rows):
        return None
    return 8 * sum(row.stored_bytes or 0 for row in rows) / sum(row.num_weights or 0 for row in rows)


def _disk(facts: ModelFacts, disk_bytes: int | None) -> DiskAudit:
    implied = facts.num_bytes
    tolerance = _BYTES_OF_CONFIG + _BYTES_OF_A_HEADER_ENTRY * facts.num_tensors + int(_TOLERANCE * (implied or 0))
    ratio = disk_bytes / implied if disk_bytes is not None and implied else None
    return DiskAudit(implied_bytes=implied, disk_bytes=disk_bytes, tolerance_bytes=tolerance, ratio=ratio)
