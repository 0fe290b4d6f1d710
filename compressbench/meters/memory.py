"""`memory`: what the model itself holds, plus the most that one call allocates at the workload's shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from compressbench.core.deploying import SaysWhatItRuns
from compressbench.core.errors import MeterError
from compressbench.core.protocols import Batch, Session
from compressbench.core.reading import Reading
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from torch import nn

_EXACT = "counted from the allocator's own events, not sampled"
_PACKED_UNSEEN = "the engine packs weights outside PyTorch's allocators; counted as they are stored"
_CACHE_COUNTED = "counted from the tensors of the cache, not sampled"
_TOKENS_PER_SECTION = 4


class Memory(Spec):
    """Independent of what else lives in the process, so baseline and candidate can be resident together.

    `weights_memory_bytes` is what the weights occupy, packed copies included; `peak_memory_bytes` adds the peak of the
    tensors allocated during one call: a forward pass, or the generation of `output_tokens`. Kernel scratch memory outside
    PyTorch's allocators is not in it. `peak_reserved_memory_bytes` (CUDA only) adds what the caching allocator had to
    take from the device for that call, which is never less. `kv_cache_memory_bytes` is the key-value cache of one call at
    its full length; a model or a runtime without one has no such reading.
    """

    scope: ClassVar[str] = "model"

    def read(
        self, handle: ModelHandle, session: Session, batch: Batch, output_tokens: int | None = None
    ) -> list[Reading]:
        if isinstance(session, SaysWhatItRuns) and session.deployed.num_files_bytes is not None:
            raise MeterError(
                f"{session.deployed.engine} allocates outside of PyTorch", do="See resident_memory_bytes instead."
            )
        is_cuda = session.device.startswith("cuda")
        _call(session, batch, output_tokens)
        weights, is_exact = resident_bytes(handle.model, session.device)
        peak = call_peak(session, batch, output_tokens)
        values = {"weights_memory_bytes": weights, "peak_memory_bytes": weights + peak.allocated_bytes}
        if is_cuda:
            values["peak_reserved_memory_bytes"] = weights + peak.reserved_bytes
        source = "PyTorch CUDA allocator" if is_cuda else "PyTorch CPU allocator events"
        readings = [
            Reading(
                name=name,
                value=float(value),
                kind="measured" if is_exact else "estimated",
                source=source,
                uncertainty_reason=_EXACT if is_exact else _PACKED_UNSEEN,
            )
            for name, value in values.items()
        ]
        return readings + _cache_reading(session, batch, output_tokens)


def _call(session: Session, batch: Batch, output_tokens: int | None, on_token: Callable[[], None] | None = None) -> Any:
    return session(batch) if output_tokens is None else session.generate(batch, output_tokens, on_token)


def _cache_reading(session: Session, batch: Batch, output_tokens: int | None) -> list[Reading]:
    from compressbench.models.kv_cache import HoldsCache

    num_bytes = session.kv_cache_bytes(batch, output_tokens or 0) if isinstance(session, HoldsCache) else None
    if num_bytes is None:
        return []
    prompts = batch["input_ids"] if "input_ids" in batch else batch["decoder_input_ids"]
    length = len(prompts[0]) + max(0, (output_tokens or 0) - 1)
    return [
        Reading(
            name="kv_cache_memory_bytes",
            value=float(num_bytes),
            kind="measured",
            source="bytes of the cache after a prefill",
            boundary=f"{len(prompts)} x {length} positions, the last token is never fed back",
            uncertainty_reason=_CACHE_COUNTED,
        )
    ]


class CallPeak(NamedTuple):
    """The most that one call holds above what was held before: tensors, and (on CUDA) memory taken from the device."""

    allocated_bytes: int
    reserved_bytes: int


def call_peak(session: Session, batch: Batch, output_tokens: int | None) -> CallPeak:
    """Of a call that isn't the session's first."""
    from compressbench.models.allocations import trace_allocations

    if session.device.startswith("cuda"):
        return _cuda_peak(session, batch, output_tokens)
    if output_tokens is None:
        return CallPeak(trace_allocations(lambda: session(batch), session.device).peak_bytes, 0)
    return CallPeak(_generation_peak(session, batch, output_tokens), 0)


def _cuda_peak(session: Session, batch: Batch, output_tokens: int | None) -> CallPeak:
    """Blocks that earlier calls left in the allocator's cache are given back first, so that this call's are seen."""
    import torch

    from compressbench.models.allocations import trace_allocations

    session.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(session.device)
    allocated = trace_allocations(lambda: _call(session, batch, output_tokens), session.device).peak_bytes
    grown = torch.cuda.max_memory_reserved(session.device) - before
    # a call may also find room in segments that other tensors hold in part
    return CallPeak(allocated, max(allocated, grown))


def _generation_peak(session: Session, batch: Batch, output_tokens: int) -> int:
    from compressbench.models.cpu_trace import CpuTrace

    trace, num_tokens = CpuTrace(), 0

    def on_token() -> None:
        nonlocal num_tokens
        num_tokens += 1
        if num_tokens % _TOKENS_PER_SECTION == 0:
            trace.cut()

    trace.start()
    try:
        result = session.generate(batch, output_tokens, on_token)
    finally:
        trace.stop()
    del result
    return trace.peak_bytes


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
    opaque: list[Any] = [module for module in model.modules() if getattr(module, "is_opaque", False)]
    packed = trace_allocations(lambda: [module.packed_again() for module in opaque], device).net_bytes if opaque else 0
    stored = sum(tensor.nbytes for module in opaque for tensor in module.stored_tensors().values())
    return sum(storages.values()) + max(packed, stored), packed >= stored and not unseen
