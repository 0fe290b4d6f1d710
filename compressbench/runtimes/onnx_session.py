"""Sessions of ONNX Runtime: how one is opened, and that of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.deploying import Deployed, KernelUse
from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.runtimes.onnx_export import MODEL, GraphFacts

if TYPE_CHECKING:
    import torch

_LEVELS = {
    "all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}  # fmt: skip


class Opening(NamedTuple):
    """How a session is opened: the provider (cpu or cuda), the level of graph optimisation, threads of a product."""

    provider: str
    graph_optimization: str
    num_threads: int
    allow_spinning: bool


class Opened(NamedTuple):
    """What a session keeps of its opening: its files' folder and facts, and what it says of itself."""

    folder: Path
    facts: GraphFacts
    opening: Opening
    deployed: Deployed
    wanted: tuple[str, ...]


def open_engine(folder: Path, opening: Opening, profile_prefix: str | None = None) -> Any:
    """An onnxruntime.InferenceSession of the folder's model. Raises ModelError if the engine can't read it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[opening.graph_optimization])
    options.intra_op_num_threads, options.inter_op_num_threads = opening.num_threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(opening.allow_spinning)))
    options.add_session_config_entry("session.force_spinning_stop", "1")  # a call's threads end with it
    if profile_prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    try:
        return onnxruntime.InferenceSession(str(folder / MODEL), options, providers=providers_of(opening.provider))
    except Exception as error:  # the engine's exceptions have no common class of their own
        raise ModelError(
            "ONNX Runtime can't open the model",
            where=str(folder / MODEL),
            got=" ".join(str(error).split())[:300],
            do="Export the candidate again.",
        ) from error


def providers_of(provider: str) -> list[str]:
    """The engine's names, with the CPU for what a GPU can't run. Raises UnsupportedError if there is no such provider."""
    import onnxruntime

    if provider == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UnsupportedError(
            "this ONNX Runtime has no CUDA provider",
            got=", ".join(onnxruntime.get_available_providers()),
            do="Install onnxruntime-gpu in place of onnxruntime, or use provider: cpu.",
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


# a view keeps its tensor: few and small ones, so that an evaluation does not pile up its data
_MOST_VIEWS, _LARGEST_VIEW_BYTES = 256, 1 << 16


class EncoderSession:
    """Answers on the host: the engine copies what a GPU computed, and has waited for it."""

    def __init__(self, opened: Opened) -> None:
        import torch

        self.device = opened.opening.provider
        self.deployed: Deployed = opened.deployed
        self._opened, self._torch = opened, torch
        self._names, self._inputs = opened.facts.inputs, set(opened.facts.inputs)
        self._views: dict[int, tuple[torch.Tensor, Any]] = {}
        self._engine = open_engine(opened.folder, opened.opening)
        self._run = self._engine.run
        self._dtype = torch.float16 if "float16" in self._engine.get_inputs()[0].type else torch.float32

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Logits (batch x labels), or last hidden states (batch x length x hidden)."""
        return self._torch.from_numpy(self._run(None, self._arrays(batch))[0])

    def _arrays(self, batch: Batch) -> dict[str, Any]:
        if batch.keys() != self._inputs:
            batch = self._completed(batch)
        return {name: self._array(batch[name]) for name in self._names}

    def _array(self, tensor: torch.Tensor) -> Any:
        """The tensor's memory as the engine reads it. Views are kept: torch's code is cold after a pass of the engine,
        and making them anew took a hundredth of a call of 6 ms.
        """
        held = self._views.get(id(tensor))
        if held is not None and held[0] is tensor:
            return held[1]
        given = tensor
        if tensor.is_floating_point():
            tensor = tensor.to(self._dtype)
        if tensor.device.type != "cpu":
            return tensor.cpu().numpy()
        array = tensor.numpy()
        if (
            tensor is given and array.nbytes <= _LARGEST_VIEW_BYTES
        ):  # not a copy, so that it shows what is written into the tensor later
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            self._views[id(given)] = (given, array)
        return array

    def _completed(self, batch: Batch) -> Batch:
        unknown = sorted(set(batch) - set(self._names))
        if unknown == ["token_type_ids"] and not bool(batch["token_type_ids"].any()):
            unknown = []  # one sentence each, as the graph has it
        if unknown:
            raise UnsupportedError("the exported graph has no such input", got=", ".join(unknown))
        if "attention_mask" not in batch:
            return {**batch, "attention_mask": self._torch.ones_like(batch["input_ids"])}
        return batch

    def generate(self, batch: Batch, num_tokens: int, on_token: Any = None) -> Any:
        raise UnsupportedError("this model has no decoder to generate with")

    def kernels(self, batch: Batch, output_tokens: int | None = None) -> KernelUse:
        """Of one forward pass, in a session of its own: profiling slows the one that is timed."""
        from compressbench.runtimes.onnx_profile import kernels_of

        feeds: Mapping[str, Any] = self._arrays(batch)
        return kernels_of(self._opened, lambda engine: engine.run(None, feeds))

    def synchronize(self) -> None:
        """A run has ended when it returns."""

    def close(self) -> None:
        """Let go of the engine and its threads."""
        del self._run, self._engine, self._views
