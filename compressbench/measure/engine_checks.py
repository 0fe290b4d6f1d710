"""What an audit says of a model in an engine of its own: its kernels, its parity, and what can't be seen there."""

from __future__ import annotations

from collections.abc import Iterator

from compressbench.core.deploying import KernelUse
from compressbench.records.audit import Audit, Finding, NotChecked
from compressbench.records.deployment import Deployment


def with_deployment(found: Audit, deployment: Deployment, used: KernelUse | None) -> Audit:
    """The audit with the engine's findings. Bits are those of its files, because modules aren't what it runs."""
    findings = [*found.findings, *_kernels(used), *_parity(deployment)]
    not_checked = list(found.not_checked)
    if used is None or not used.counts:
        not_checked.append(NotChecked(what="kernels", reason=f"{deployment.engine} doesn't say which ones ran"))
    bits = {}
    if deployment.num_files_bytes is not None:
        not_checked.append(
            NotChecked(
                what="what the engine stores of each module", reason="modules are as they were before the export"
            )
        )
        all_bits = 8 * deployment.num_files_bytes / found.num_parameters if found.num_parameters else None
        bits = {"effective_bits_compressed": None, "effective_bits_all": all_bits}
    return found.model_copy(
        update={
            **bits,
            "findings": tuple(sorted(findings, key=lambda finding: not finding.is_false_claim)),
            "not_checked": tuple(not_checked),
            "claim_ok": not any(finding.is_false_claim for finding in findings),
        }
    )


def _kernels(used: KernelUse | None) -> Iterator[Finding]:
    if used is None:
        return
    if used.wanted and used.counts and not any(part in name for name in used.counts for part in used.wanted):
        yield Finding(
            code="kernel-did-not-run",
            message=f"none of {', '.join(used.wanted)} ran in the engine",
            is_false_claim=True,
        )
    for each in used.fallbacks:
        yield Finding(code="engine-fell-back", message=each, is_false_claim=False)


def _parity(deployment: Deployment) -> Iterator[Finding]:
    """An exact engine that isn't has no record; what one that rounds may do to a model is said here."""
    if deployment.to_torch is not None and deployment.to_torch.broken:
        message = f"far from the model in PyTorch: {'; '.join(deployment.to_torch.broken)}"
        yield Finding(code="far-from-torch", message=message, is_false_claim=False)
