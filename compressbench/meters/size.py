"""`size`: how big the model is, on disk and in numbers."""

from __future__ import annotations

from typing import ClassVar

from compressbench.core.deploying import SaysWhatItRuns
from compressbench.core.protocols import Batch, Session
from compressbench.core.reading import Reading
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle

_EXACT = "counted, not sampled"
_IN_FILES = "bits of the files that the engine runs, its graph too, per parameter"


class Size(Spec):
    """Bytes as saved, parameters, fraction of zeros, and bits per parameter over the whole model."""

    scope: ClassVar[str] = "model"

    def read(
        self, handle: ModelHandle, session: Session, batch: Batch, output_tokens: int | None = None
    ) -> list[Reading]:
        from compressbench.models.size import count_weights, disk_bytes

        count = count_weights(handle.model)
        files = session.deployed.num_files_bytes if isinstance(session, SaysWhatItRuns) else None
        stored = (count.num_bytes, "stored bits, scales too, per parameter") if files is None else (files, _IN_FILES)
        values = {
            "disk_bytes": (disk_bytes(handle.model), "files written by save_pretrained, safetensors and config")
            if files is None
            else (files, "files that the engine runs"),
            "num_parameters": (count.num_parameters, "elements of weights and biases, tied ones once"),
            "sparsity": (count.num_zeros / count.num_parameters, "zeros among all weights and biases"),
            "effective_bits": (8 * stored[0] / count.num_parameters, stored[1]),
        }
        return [
            Reading(name=name, value=float(value), kind="measured", source=source, uncertainty_reason=_EXACT)
            for name, (value, source) in values.items()
        ]
