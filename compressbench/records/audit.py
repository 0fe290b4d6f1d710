"""What an audit found: what a model really stores, which kernels ran, and which of its claims are false.

A claim that could not be checked is in `not_checked` with the reason; nothing passes in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from compressbench.core.protocols import Claim
from compressbench.core.spec import Spec

Code = Literal[
    # false claims
    "no-modules",
    "module-missing",
    "stayed-full-precision",
    "wider-than-claimed",
    "less-sparse-than-claimed",
    "mask-structure-broken",
    "not-smaller",
    "zeros-are-stored",
    "disk-above-bits",
    "not-faster",
    "kernel-did-not-run",
    "fell-back",
    "nothing-changed",
    "changed-unclaimed",
    "removed-unclaimed",
    "added-unclaimed",
    "untied",
    # notes
    "dequantizes-every-call",
    "disk-below-bits",
    "untied-as-claimed",
    "rounded-unclaimed",
    "resized-unclaimed",
    "unmentioned",
    "engine-fell-back",
    "far-from-torch",
]


class ModuleAudit(Spec):
    """A module that holds a weight matrix, or that a claim names.

    `num_weights` counts the weights it stands for, biases apart; `stored_bytes` what is kept for them, scales and zero
    points included, and `bits` is 8 stored_bytes / num_weights. `sparsity` is the fraction of zeros among the dequantized
    weights. `dtype` is that of the weights or their codes. `steps` have worked on it; `left_out` is why others have not.
    `tied_to` holds the same tensor and is where it counts. What can't be counted is None, and `unknown` says why.
    """

    name: str
    kind: str
    num_weights: int | None
    stored_bytes: int | None
    bits: float | None
    sparsity: float | None
    dtype: str
    steps: tuple[str, ...] = ()
    left_out: str = ""
    tied_to: str | None = None
    unknown: str = ""


class DtypeUse(Spec):
    """How much is stored in one type, tied tensors once."""

    num_elements: int
    num_bytes: int


class DiskAudit(Spec):
    """Bytes of the files against the stored bytes that the modules imply; `ratio` is files / implied.

    `tolerance_bytes` leaves room for headers and configuration.
    """

    implied_bytes: int | None
    disk_bytes: int | None
    tolerance_bytes: int
    ratio: float | None


class ClaimAudit(Spec):
    """A claim as it was given, and beside it what is really there; None where nothing was claimed or it can't be known.

    `bits` are stored bits per weight without scales and zero points, over all claimed matrices; `sparsity` is over the
    same; `holds_structure` is whether the mask structure holds everywhere; `kernels` are the claimed ones that ran.
    """

    claim: Claim
    num_matrices: int
    bits: float | None = None
    sparsity: float | None = None
    holds_structure: bool | None = None
    kernels: tuple[str, ...] = ()


class Finding(Spec):
    """A false claim, or a note. `step` is the claim's, None for what no step claimed; `modules` are all it is true of."""

    code: Code
    message: str
    is_false_claim: bool
    step: str | None = None
    modules: tuple[str, ...] = ()


class NotChecked(Spec):
    """Something that could not be checked: neither true nor false."""

    what: str
    reason: str
    step: str | None = None


class Audit(Spec):
    """`effective_bits_compressed` are stored bits per weight, scales too, over the matrices that steps worked on;
    `effective_bits_all` over all parameters of the model. `kernels` are the profiler's names of one call with counts.
    """

    modules: tuple[ModuleAudit, ...]
    num_parameters: int | None
    effective_bits_compressed: float | None
    effective_bits_all: float | None
    dtypes: Mapping[str, DtypeUse]
    disk: DiskAudit
    claims: tuple[ClaimAudit, ...]
    kernels: Mapping[str, int]
    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]
    claim_ok: bool

    @model_validator(mode="after")
    def _is_ok_without_false_claims_only(self) -> Audit:
        if self.claim_ok != (not self.false_claims):
            raise ValueError(f"claim_ok {self.claim_ok} contradicts {len(self.false_claims)} false claims")
        return self

    @property
    def false_claims(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_false_claim]

    @property
    def notes(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_false_claim]
