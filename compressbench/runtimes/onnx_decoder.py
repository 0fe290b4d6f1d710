"""A language model in ONNX Runtime: one graph for prompts and steps, its key-value cache written in place.

The cache's buffers are bound once as the graph's past and its present, so that a step copies nothing of it: at 125
million parameters and a thousand positions that would be as much memory traffic as the int8 weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compressbench.core.deploying import Deployed, KernelUse
from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.models.own_decoding import ArraySteps, Special, greedy_arrays
from compressbench.runtimes.onnx_session import Opened, open_engine

if TYPE_CHECKING:
    import torch


class CachedSteps(ArraySteps):
    """Over an engine. Buffers are kept while batches need the same size."""

    def __init__(self, engine: Any, opened: Opened) -> None:
        assert opened.facts.cache is not None  # noqa: S101 -- a decoder's facts have it
        self._engine, self._shape, self._device = engine, opened.facts.cache, opened.opening.provider
        self._cache_names = [
            each.name.removeprefix("past.") for each in engine.get_inputs()[len(opened.facts.inputs) :]
        ]
        self._bound: dict[str, Any] = {}
        self._binding: Any = None
        self._room = (0, 0)

    def prompt(self, batch: Batch, num_tokens: int) -> Any:
        import numpy

        ids = numpy.ascontiguousarray(batch["input_ids"].cpu().numpy())
        mask = batch["attention_mask"].cpu().numpy() if "attention_mask" in batch else numpy.ones_like(ids)
        rows, self._length = ids.shape
        if not mask[:, -1].all():
            raise ValueError("prompts are padded on the left, so that they all end where the writing begins")
        self._make_room(rows, self._length + num_tokens)
        self._mask = numpy.ones((rows, self._length + num_tokens), dtype=numpy.int64)
        self._mask[:, : self._length] = mask
        positions = (mask.cumsum(axis=1) - 1).clip(min=0)
        self._position = positions[:, -1:].copy()
        self._bind("kept", numpy.array([self._length - 1]))
        found = self._run(ids, positions)
        self._bind("kept", numpy.zeros(1, dtype=numpy.int64))
        return found

    def next(self, ids: Any) -> Any:
        self._length += 1
        self._position += 1
        return self._run(ids, self._position)

    def _run(self, ids: Any, positions: Any) -> Any:
        import numpy

        self._bind("input_ids", ids)
        self._bind("attention_mask", numpy.ascontiguousarray(self._mask[:, : self._length]))
        self._bind("position_ids", positions)
        self._binding.bind_output("logits", "cpu")
        self._engine.run_with_iobinding(self._binding)
        return self._binding.get_outputs()[-1].numpy()[:, 0]

    def _bind(self, name: str, array: Any) -> None:
        """The engine reads the array when it runs, so it has to live until then."""
        self._bound[name] = array
        self._binding.bind_cpu_input(name, array)

    def _make_room(self, rows: int, positions: int) -> None:
        """Buffers of (rows x heads x positions x size), bound as past and as present."""
        import numpy
        import onnxruntime

        if self._room == (rows, positions):
            return
        shape = (rows, self._shape.num_heads, positions, self._shape.head_size)
        empty = numpy.zeros(shape, dtype=_cache_type(self._engine))
        self._buffers = [
            onnxruntime.OrtValue.ortvalue_from_numpy(empty.copy(), self._device, 0) for _ in self._cache_names
        ]
        self._binding = self._engine.io_binding()
        for name, buffer in zip(self._cache_names, self._buffers, strict=True):
            self._binding.bind_ortvalue_input(f"past.{name}", buffer)
            self._binding.bind_ortvalue_output(f"present.{name}", buffer)
        self._room = (rows, positions)


class DecoderSession:
    """Answers on the host."""

    def __init__(self, opened: Opened, special: Special, tokenizer: Any) -> None:
        self.device = opened.opening.provider
        self.deployed: Deployed = opened.deployed
        self._opened, self._special, self._tokenizer = opened, special, tokenizer
        self._engine = open_engine(opened.folder, opened.opening)
        self._steps = CachedSteps(self._engine, opened)

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Logits of every position (batch x length x vocabulary), without a cache."""
        import torch

        feeds = _whole(self._engine, self._opened, batch)
        return torch.from_numpy(self._engine.run(["logits"], feeds)[0])

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        return greedy_arrays(self._steps, batch, num_tokens, self._special.end, on_token)

    def write(self, batch: Batch, decoding: Decoding) -> list[Written]:
        from compressbench.models.own_decoding import write

        return write(self._steps, self._tokenizer, self._special, batch, decoding)

    def kv_cache_bytes(self, batch: Batch, num_tokens: int) -> int | None:
        """Of the positions that are filled in the end; the buffers have room for one more."""
        rows, length = batch["input_ids"].shape
        assert self._opened.facts.cache is not None  # noqa: S101
        size = _cache_type(self._engine).itemsize
        return self._opened.facts.cache.num_bytes(rows, length + max(0, num_tokens - 1), size)

    def kernels(self, batch: Batch, output_tokens: int | None = None) -> KernelUse:
        """Of one generation, or of one forward pass, in a session of its own."""
        from compressbench.runtimes.onnx_profile import kernels_of

        def run(engine: Any) -> None:
            if output_tokens is None:
                engine.run(["logits"], _whole(engine, self._opened, batch))
            else:
                greedy_arrays(CachedSteps(engine, self._opened), batch, output_tokens, self._special.end)

        return kernels_of(self._opened, run)

    def synchronize(self) -> None:
        """A run has ended when it returns."""

    def close(self) -> None:
        """Let go of the engine, its threads and the cache."""
        del self._steps, self._engine


def _whole(engine: Any, opened: Opened, batch: Batch) -> dict[str, Any]:
    """Inputs of a pass over whole sequences: an empty cache, and every position's logits."""
    import numpy
    import torch

    from compressbench.models.export_wrappers import positions_of

    unknown = sorted(set(batch) - {"input_ids", "attention_mask"})
    if unknown:
        raise UnsupportedError("the exported graph has no such input", got=", ".join(unknown))
    shape = opened.facts.cache
    assert shape is not None  # noqa: S101
    ids = batch["input_ids"].cpu()
    mask = batch["attention_mask"].cpu() if "attention_mask" in batch else torch.ones_like(ids)
    given = (ids, mask, positions_of(mask), torch.arange(ids.shape[1]))
    feeds = {name: tensor.numpy() for name, tensor in zip(opened.facts.inputs, given, strict=True)}
    empty = numpy.zeros((len(ids), shape.num_heads, 0, shape.head_size), dtype=_cache_type(engine))
    return feeds | {each.name: empty for each in engine.get_inputs()[len(opened.facts.inputs) :]}


def _cache_type(engine: Any) -> Any:
    """NumPy's type of the keys and values, which are a graph's last inputs."""
    import numpy

    return numpy.dtype("float16" if "float16" in engine.get_inputs()[-1].type else "float32")
