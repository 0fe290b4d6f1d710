"""Writes tests/data/records-v5 anew. Run it only for a new schema version, into a new folder: old records stay."""

from __future__ import annotations

import sys
from pathlib import Path

import record_builder as build

from compressbench.core.protocols import Claim
from compressbench.records.audit import Audit, ClaimAudit, DiskAudit, DtypeUse, Finding, ModuleAudit
from compressbench.records.deployment import Deployment, FreshProcess, Parity
from compressbench.records.evidence import DisturbanceRule, Evidence
from compressbench.records.limits import Limits, Work
from compressbench.records.measurement import Idle, Measurement, Outputs
from compressbench.records.record import Artefact
from compressbench.records.score import Draw, Fidelity, Floor, Resampled, Score, Stratum
from compressbench.records.store import RecordStore

CLAIM = Claim(
    step="gptq", modules=("bert.encoder",), left_out={"classifier": "an output head"}, bits=4, is_smaller=True
)


def an_audit(*findings: Finding, bits: float = 4.0) -> Audit:
    """Of an encoder of one matrix and a head, the matrix stored in `bits`."""
    stored = int(64 * bits / 8 + 4)
    return Audit(
        modules=(
            ModuleAudit(
                name="bert.encoder", kind="packed", num_weights=64, stored_bytes=stored, bits=8 * stored / 64,
                sparsity=0.0, dtype="uint8", steps=("gptq",),
            ),
            ModuleAudit(
                name="classifier", kind="Linear", num_weights=16, stored_bytes=64, bits=32.0, sparsity=0.0,
                dtype="float32", left_out="gptq: an output head",
            ),
        ),
        num_parameters=80,
        effective_bits_compressed=8 * stored / 64,
        effective_bits_all=8 * (stored + 64) / 80,
        dtypes={"uint8": DtypeUse(num_elements=stored - 4, num_bytes=stored - 4)},
        disk=DiskAudit(implied_bytes=stored + 64, disk_bytes=stored + 70, tolerance_bytes=100, ratio=1.0),
        claims=(ClaimAudit(claim=CLAIM, num_matrices=1, bits=bits, kernels=()),),
        kernels={"aten::addmm": 2},
        findings=findings,
        not_checked=(),
        claim_ok=not findings,
    )  # fmt: skip


PARITY = Parity(
    reference="the model in PyTorch", num_rows=2048, max_difference=2e-5, mean_kl=1e-9, top1_agreement=1.0,
    limits={"max_mean_kl": 1e-4},
)  # fmt: skip
DEPLOYMENT = Deployment(
    engine="onnxruntime 1.31.1", precision="float32", num_files_bytes=1200, weight_bytes=1000,
    seconds={"export_s": 3.1, "open_s": 0.2}, notes={"opset": 20}, sha256="ef" * 32, to_torch=PARITY,
    fresh=FreshProcess(open_s=0.3, resident_bytes=4_000_000, parity=PARITY),
)  # fmt: skip


WIDER = Finding(
    code="wider-than-claimed", message="8 bits are stored per weight where 4 are claimed", is_false_claim=True,
    step="gptq", modules=("bert.encoder",),
)  # fmt: skip


LIMITS = Limits(
    device="cpu", copy_bytes_per_s=2e10, copy_bytes=2**28, matmul_flops_per_s={"float32": 1e11}, num_threads=2, seconds=1.5
)  # fmt: skip
WORK = Work(flops=7e8, flops_by_dtype={"float32": 7e8}, weight_bytes=42_000_000, compute_dtype="float32")


def measured(candidate_s: float) -> Measurement:
    """One round in six was disturbed; the meter's window was void once; idle was read; the outputs are scored."""
    run = build.interleaved(build.noisy(0.010), build.noisy(candidate_s, seed=2), build.noisy(0.010, seed=3))
    void = run.blocks[7].model_copy(update={"raw": {}, "uncertainties": {}, "void": {"energy": "counter reset"}})
    blocks = (*run.blocks[:7], void, *run.blocks[8:])
    shares = tuple(0.3 if block.round == 2 else 0.01 for block in blocks)
    idle = {"seconds": 0.5, "raw": {"energy_j": 0.1}, "uncertainties": {"energy_j": 0.001}}
    return build.measured_by(
        blocks,
        kind="measured",
        evidence=Evidence(
            foreign_share=shares, steal_share=(0.0,) * len(blocks), unread={"cpu_frequency_hz": "no file"}
        ),
        rule=DisturbanceRule(),
        idle=(Idle(when="before", **idle), Idle(when="after", **idle)),
        outputs={
            "candidate": Outputs(sha256="cd" * 32, num_inputs=64, is_repeatable=True, num_scored=64, num_correct=60)
        },
    )


FIDELITY = Fidelity(
    agreement=0.99, num_positions=3080, num_classes=77, top_k=32, same_top_1=0.99, kl_mean=0.002, kl_median=0.001,
    kl_p99=0.03, kl_max=0.4,
)  # fmt: skip


def judged(score: Score) -> Score:
    """An accuracy with everything that a score can have: a margin, strata, draws, fidelity, another metric."""
    paired = score.paired
    strata = {"language": Stratum(num_samples=3080, value=0.93, paired=paired)}
    draw = {"samples_file": "samples.parquet", "samples_sha256": "0" * 64, "paired": paired}
    return score.model_copy(
        update={
            "label": "banking77",
            "margin": 0.005,
            "strata": strata,
            "fidelity": FIDELITY,
            "calibration_error": 0.04,
            "num_truncated": 3,
            "reported": {"acc_norm": 0.9},
            "draws": (Draw(seed=0, value=0.9284, **draw), Draw(seed=1, value=0.929, **draw)),
            "over_draws": resampled(-0.0013, 0.002),
        }
    )


def surprised(value: float, nats: float) -> Score:
    """A perplexity so many nats above the baseline's."""
    paired = build.counts(60, 40, 100).model_copy(
        update={"mean_difference": nats, "sd_difference": 0.1, "resampled": resampled(nats, 0.01)}
    )
    return build.perplexity(value, paired=paired, scale="log", margin=0.01, stratum="language")


def resampled(difference: float, error: float) -> Resampled:
    return Resampled(
        difference=difference, low=difference - 2 * error, high=difference + 2 * error, standard_error=error,
        p_value=0.3, method="BCa bootstrap; sign-flip permutation test", seed=0, num_resamples=9999, num_units=100,
    )  # fmt: skip


def write_recorded(folder: Path) -> None:
    """One run: a baseline, a candidate that was saved and whose claims hold, and one that only says it has 4 bits."""
    store = RecordStore(folder)
    artefact = Artefact(folder="artefacts/example", num_bytes=1234, sha256="ab" * 32, max_difference=0.0)
    for record in build.run_of(
        {
            "gptq": build.record(
                "gptq",
                steps=(build.step("gptq", bits=4),),
                scores=(judged(build.accuracy_after(9, 4)), surprised(21.5, 0.03)),
                measurement=measured(0.006),
                audit=an_audit(),
                artefact=artefact,
                deployment=DEPLOYMENT,
            ),
            "gptq-in-name": build.record(
                "gptq-in-name",
                steps=(build.step("gptq", bits=4),),
                scores=(judged(build.accuracy_after(4, 4)), surprised(20.9, 0.002)),
                measurement=measured(0.0101),
                audit=an_audit(WIDER, bits=8.0),
            ),
        },
        scores=(
            build.accuracy(0.93, label="banking77", floor=Floor(how="batch size 32", paired=build.counts(1, 0, 1000))),
            build.perplexity(20.86, scale="log", stratum="language"),
        ),
        measurement=measured(0.010),
        limits=LIMITS,
        work=WORK,
    ):
        store.append(record)


if __name__ == "__main__":
    write_recorded(Path(sys.argv[1]))
