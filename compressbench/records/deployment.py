"""What was deployed where a runtime runs something else than PyTorch's modules, and the proof that it is the candidate."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from compressbench.core.deploying import Deployed
from compressbench.core.spec import Spec
from compressbench.records.limits import Work


class Parity(Spec):
    """How far answers are from other answers to the same inputs: those of the model in PyTorch, or of the same files.

    `mean_kl` is the mean over rows of KL(reference || found) in nats, `top1_agreement` the share of rows whose largest
    logit is the same; both are None for vectors, which have a `min_cosine` instead. `num_equal_texts` of `num_texts`
    greedy texts are the same token for token. `limits` are those that were set, by name, and `broken` says what exceeds
    them; empty if nothing does.
    """

    reference: str
    num_rows: int = Field(ge=1)
    max_difference: float
    mean_kl: float | None = None
    top1_agreement: float | None = None
    min_cosine: float | None = None
    num_texts: int = 0
    num_equal_texts: int = 0
    limits: Mapping[str, float] = {}
    broken: tuple[str, ...] = ()


class FreshProcess(Spec):
    """The same files, opened by a process that knows nothing of the run.

    `resident_bytes` is by how much its resident set grew from before they were opened to after the calls; None where the
    system doesn't say.
    """

    open_s: float = Field(ge=0)
    resident_bytes: int | None = None
    parity: Parity


class Deployment(Deployed):
    """`to_torch` compares the session with the model that it was made from, `fresh` with itself in another process; either
    is None where it does not apply, and `not_compared` says why. `sha256` is over all exported files in order of name.
    """

    sha256: str | None = None
    to_torch: Parity | None = None
    fresh: FreshProcess | None = None
    not_compared: str = ""

    @property
    def broken(self) -> tuple[str, ...]:
        fresh = self.fresh.parity.broken if self.fresh else ()
        return (*(self.to_torch.broken if self.to_torch else ()), *fresh)


_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def work_of(work: Work, deployment: Deployment | None) -> Work:
    """What a call of the engine asks for: the model's work with the engine's own bytes of weights and of cache.

    All operations count as of the type in which most of its products compute. The model's own work where the engine runs
    its modules, or doesn't say what it reads.
    """
    if deployment is None or deployment.weight_bytes is None:
        return work
    dtype = deployment.precision.split(", ")[0]
    decode = sum(work.decode_flops_by_dtype.values())
    return work.model_copy(
        update={
            "flops_by_dtype": {} if work.flops is None else {dtype: work.flops},
            "weight_bytes": deployment.weight_bytes,
            "decode_flops_by_dtype": {dtype: decode} if decode else {},
            "decode_weight_bytes": None if work.decode_weight_bytes is None else deployment.weight_bytes,
            "kv_bytes": _kv_bytes(work, deployment.cache_item_bytes),
            "compute_dtype": dtype,
        }
    )


def _kv_bytes(work: Work, item_bytes: int | None) -> int | None:
    own = _ITEM_BYTES.get(work.compute_dtype)
    if work.kv_bytes is None or own is None or item_bytes is None:
        return work.kv_bytes
    return work.kv_bytes * item_bytes // own
