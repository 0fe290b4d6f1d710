"""`size`: how big the model is, on disk and in numbers."""

from __future__ import annotations

from typing import ClassVar

from compressbench.core.protocols import Batch, Session
from compressbench.core.reading import Reading
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle

_EXACT = "counted, not sampled"


class Size(Spec):
    """Bytes as saved, parameters, fraction of zeros, and bits per parameter over the whole model."""

    scope: ClassVar[str] = "model"

    def read(
        self, handle: ModelHandle, session: Session, batch: Batch, output_tokens: int | None = None
    ) -> list[Reading]:
        from compressbench.models.size import count_weights, disk_bytes

        count = count_weights(handle.model)
        values = {
            "disk_bytes": (disk_bytes(handle.model), "files written by save_pretrained, safetensors and config"),
            "num_parameters": (count.num_parameters, "elements of weights and biases, tied ones once"),
            "sparsity": (count.num_zeros / count.num_parameters, "zeros among all weights and biases"),
            "effective_bits": (8 * count.num_bytes / count.num_parameters, "stored bits, scales too, per parameter"),
        }
        return [
            Reading(name=name, value=float(value), kind="measured", source=source, uncertainty_reason=_EXACT)
            for name, (value, source) in values.items()
        ]
