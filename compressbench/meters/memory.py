"""`memory`: what the model itself holds, plus the most that one call allocates at the workload's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from compressbench.core.protocols import Batch, Session
from compressbench.core.reading import Reading
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from torch import nn

_EXACT = "counted from the allocator's own events, not sampled"
_PACKED_UNSEEN = "the engine packs weights outside PyTorch's allocators; counted as they are stored"


class Memory(Spec):
    """Independent of what else lives in the process, so baseline and candidate can be resident together.

    `weights_memory_bytes` is what the weights occupy, packed copies included; `peak_memory_bytes` adds the peak of the
    tensors allocated during one call. Kernel scratch memory outside PyTorch's allocators is not in it.
    """

    scope: ClassVar[str] = "model"

    def read(self, handle: ModelHandle, session: Session, batch: Batch) -> list[Reading]:
        from compressbench.models.allocations import trace_allocations

        session(batch)
        weights, is_exact = resident_bytes(handle.model, session.device)
        activations = trace_allocations(lambda: session(batch), session.device).peak_bytes
        source = "PyTorch CUDA allocator" if session.device.startswith("cuda") else "PyTorch CPU allocator events"
        values = {"weights_memory_bytes": weights, "peak_memory_bytes": weights + activations}
        return [
            Reading(
                name=name,
                value=float(value),
                kind="measured" if is_exact else "estimated",
                source=source,
                uncertainty_reason=_EXACT if is_exact else _PACKED_UNSEEN,
            )
            for name, value in values.items()
        ]


def resident_bytes(model: nn.Module, device: str) -> tuple[int, bool]:
    """Bytes of all parameters and buffers, each storage once, and of packed weights, found by packing a copy.

    The second value says whether all of it was seen: some engines pack outside PyTorch's allocators, and then the
    bytes that the weights have on disk stand in.
    """
    from compressbench.models.allocations import trace_allocations
    from compressbench.models.stored_weights import plain

    named = {str(at): tensor for at, tensor in enumerate([*model.parameters(), *model.buffers()])}
    tensors, unseen = plain(named)  # those inside of tensor subclasses, too
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors.values()}
    opaque: list[Any] = [module for module in model.modules() if hasattr(module, "packed_again")]
    packed = trace_allocations(lambda: [module.packed_again() for module in opaque], device).net_bytes if opaque else 0
    stored = sum(tensor.nbytes for module in opaque for tensor in module.stored_tensors().values())
    return sum(storages.values()) + max(packed, stored), packed >= stored and not unseen
