"""What the device can do at most, and what a model asks of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from compressbench.core.roofline import Ceilings, Demand
from compressbench.core.spec import Spec

Rate = Annotated[float, Field(gt=0)]
Count = Annotated[float, Field(ge=0)]


class Limits(Spec):
    """Measured on this device, in this process, with the threads of the run; not a datasheet.

    `copy_bytes_per_s` counts bytes read and bytes written of a copy of `copy_bytes`, larger than every cache.
    `matmul_flops_per_s` has a rate per data type (e.g. "float32") that the device could multiply matrices in, 2 per
    multiply-add, with matrices of `matmul_sizes` rows and columns. Both are the best of all repeats, because whatever
    disturbs makes slower; `copy_median_bytes_per_s` and `matmul_median_flops_per_s` are their medians. `absent` has why a
    data type's rate is not there. `cache_bytes` are all last-level caches in reach, None if the machine doesn't say.
    `disturbed` are those ("copy", or a data type) that were never measured without other processes taking CPU time: the
    true limits may be higher, and shares of them lower.
    """

    device: str
    copy_bytes_per_s: float = Field(gt=0)
    copy_bytes: int = Field(gt=0)
    matmul_flops_per_s: Mapping[str, Rate]
    num_threads: int | None
    seconds: float = Field(ge=0)
    copy_median_bytes_per_s: float | None = Field(None, gt=0)
    matmul_median_flops_per_s: Mapping[str, Rate] = {}
    matmul_sizes: Mapping[str, int] = {}
    cache_bytes: int | None = Field(None, gt=0)
    absent: Mapping[str, str] = {}
    disturbed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Limits:
        both = self.matmul_flops_per_s.keys() & self.absent.keys()
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: a rate and a reason for its absence contradict each other")
        for name, median in self._medians().items():
            best = self.copy_bytes_per_s if name == "copy" else self.matmul_flops_per_s.get(name, 0.0)
            if median > best:
                raise ValueError(f"{name}: the median {median} is above the best {best}")
        return self

    def _medians(self) -> dict[str, float]:
        copy = {} if self.copy_median_bytes_per_s is None else {"copy": self.copy_median_bytes_per_s}
        return {**self.matmul_median_flops_per_s, **copy}

    @property
    def ceilings(self) -> Ceilings:
        return Ceilings(self.copy_bytes_per_s, self.matmul_flops_per_s, self.cache_bytes)


class Work(Spec):
    """What one call asks at the workload's shapes, whoever executes it: counted from the model, not measured.

    `flops` are those of matrix products of the forward pass (2 per multiply-add), attention included, and
    `flops_by_dtype` the same by the type of the operands; `compute_dtype` is the type of most of them. `weight_bytes` are
    all weights that are read once per pass, packed as they are, scales included, without rows of embedding tables that are
    not used. Of a generation the forward pass is that over the prompt, and `decode_weight_bytes`, `decode_flops_by_dtype`
    and `kv_bytes`, what is read of the cache, are those of the step at the middle of the generation.
    None where the architecture isn't understood, with the reason. Activations are not counted: all bytes are least bytes.
    """

    flops: float | None = Field(None, ge=0)
    flops_by_dtype: Mapping[str, Count] = {}
    weight_bytes: int | None = Field(None, ge=0)
    decode_flops_by_dtype: Mapping[str, Count] = {}
    decode_weight_bytes: int | None = Field(None, ge=0)
    kv_bytes: int | None = Field(None, ge=0)
    compute_dtype: str = ""
    reason: str = ""

    @model_validator(mode="after")
    def _is_consistent(self) -> Work:
        if (self.flops is None or self.weight_bytes is None) and not self.reason:
            raise ValueError("work that isn't known needs a reason")
        if self.flops_by_dtype and not math.isclose(self.flops or 0, sum(self.flops_by_dtype.values())):
            raise ValueError(f"flops {self.flops} are not the sum of {dict(self.flops_by_dtype)}")
        return self

    @property
    def forward(self) -> Demand | None:
        """What a forward pass needs at least; None if it isn't known."""
        if self.flops is None or self.weight_bytes is None:
            return None
        return Demand(float(self.weight_bytes), self.flops_by_dtype)

    @property
    def decode(self) -> Demand | None:
        """What the middle step of a generation needs at least: weights and cache. None if it isn't known."""
        if self.decode_weight_bytes is None or self.kv_bytes is None or not self.decode_flops_by_dtype:
            return None
        return Demand(float(self.decode_weight_bytes + self.kv_bytes), self.decode_flops_by_dtype)
