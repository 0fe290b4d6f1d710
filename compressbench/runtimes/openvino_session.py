"""A session over compiled files of OpenVINO: what encoders and decoders share, and encoders."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.deploying import Deployed, KernelUse, Note
from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.core.files import file_sha256
from compressbench.core.protocols import Batch
from compressbench.runtimes.openvino_feeding import as_array, encoder_inputs
from compressbench.runtimes.openvino_kernels import kernel_use, nodes, product_types

if TYPE_CHECKING:
    import torch

MODEL, WEIGHTS, ABOUT = "openvino_model.xml", "openvino_model.bin", "openvino_model.json"


class About(NamedTuple):
    """What the files say of themselves; `sha256` by file, because the engine reads a changed byte as a weight."""

    inputs: Sequence[str]
    cache: Sequence[Sequence[int]]
    weight_bytes: int
    notes: Mapping[str, Note]
    sha256: Mapping[str, str]


def write_about(folder: Path, inputs: Sequence[str], cache: Sequence[Sequence[int]], **more: Any) -> None:
    hashes = {name: file_sha256(folder / name) for name in (MODEL, WEIGHTS)}
    about = About(inputs, cache, sha256=hashes, **more)
    (folder / ABOUT).write_text(json.dumps(about._asdict(), indent=1) + "\n", encoding="utf-8")


def read_about(folder: Path) -> About:
    """Raises ModelError if a file is missing, or isn't what was written."""
    try:
        about = About(**json.loads((folder / ABOUT).read_text(encoding="utf-8")))
        changed = [name for name in (MODEL, WEIGHTS) if file_sha256(folder / name) != about.sha256[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "the files of OpenVINO can't be read", where=str(folder), got=str(error), do="Export the candidate again."
        ) from error
    if changed:
        raise ModelError(f"{changed[0]} was changed", where=str(folder), do="Export the candidate again.")
    return about


class Settings(NamedTuple):
    """`plugin` are the plugin's properties; every shape (batch, length) of `shapes` gets a compiled model of its own."""

    plugin: Mapping[str, Any]
    shapes: Sequence[tuple[int, int]] = ()


class Compiled(NamedTuple):
    """A compiled model and all that is known of it. `options` are the runtime's words for quantization and precision.

    `fixed` are models for one shape of inputs (batch, length), `model` is the one for all others.
    """

    model: Any
    about: About
    options: tuple[str, str]
    num_streams: int
    seconds: Mapping[str, float]
    num_files_bytes: int
    cache_item_bytes: int = 4
    fixed: Mapping[tuple[int, ...], Any] = {}


def compile_files(folder: Path, settings: Settings, options: tuple[str, str], cache_item_bytes: int) -> Compiled:
    """Raises ModelError if the files are missing or broken."""
    import openvino as ov

    begun = time.perf_counter()
    about = read_about(folder)
    core = ov.Core()
    try:
        model = core.read_model(folder / MODEL, folder / WEIGHTS)
        read = time.perf_counter()
        compiled = core.compile_model(model, "CPU", dict(settings.plugin))
        fixed: dict[tuple[int, ...], Any] = (
            {} if about.cache else {shape: _for_shape(core, model, shape, settings) for shape in settings.shapes}
        )
    except RuntimeError as error:
        first = str(error).strip().split("\n")[0]
        raise ModelError("OpenVINO can't read or compile the model", where=str(folder), got=first[:200]) from error
    seconds = {"open_s": read - begun, "compile_s": time.perf_counter() - read}
    num_bytes = sum((folder / name).stat().st_size for name in (MODEL, WEIGHTS))
    streams = int(compiled.get_property("NUM_STREAMS"))
    return Compiled(compiled, about, options, streams, seconds, num_bytes, cache_item_bytes, fixed)


def _for_shape(core: Any, model: Any, shape: tuple[int, int], settings: Settings) -> Any:
    """Kernels that know their sizes were 1.2 times as fast (MiniLM in int8, batch 1, 32 tokens)."""
    own = model.clone()
    own.reshape(
        {port.get_any_name(): list(shape) for port in own.inputs if len(port.get_partial_shape()) == len(shape)}
    )
    return core.compile_model(own, "CPU", dict(settings.plugin))


class OpenVinoSession:
    """What both kinds share. Answers are copied, because the engine writes the next ones over them."""

    def __init__(self, compiled: Compiled, device: str) -> None:
        self.device, self._compiled = device, compiled
        self._request = compiled.model.create_infer_request()

    @property
    def deployed(self) -> Deployed:
        import openvino as ov

        compiled, notes = self._compiled, dict(self._compiled.about.notes)
        settings = ("INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS")
        notes |= {name.lower(): _text(compiled.model.get_property(name)) for name in settings}
        return Deployed(
            engine=f"openvino {ov.__version__}",
            precision=product_types(nodes(compiled.model)),
            num_files_bytes=compiled.num_files_bytes,
            weight_bytes=compiled.about.weight_bytes,
            cache_item_bytes=compiled.cache_item_bytes if compiled.about.cache else None,
            seconds=compiled.seconds,
            notes=notes,
        )

    def kernels(self, batch: Batch, output_tokens: int | None = None) -> KernelUse:
        """Of the last pass of one call: the engine chooses kernels by the shapes that it meets."""
        if output_tokens:
            self.generate(batch, min(output_tokens, 2))
        else:
            self(batch)
        model = self._compiled.fixed.get(tuple(next(iter(batch.values())).shape), self._compiled.model)
        return kernel_use(nodes(model), *self._compiled.options)

    def __call__(self, batch: Batch) -> torch.Tensor:
        raise NotImplementedError

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        """Raises UnsupportedError, unless this is a causal language model."""
        raise UnsupportedError("only a causal language model generates")

    def synchronize(self) -> None:
        """Calls return when their answer is there."""

    def close(self) -> None:
        """Let go of the engine's memory."""
        del self._request
        self._compiled = self._compiled._replace(model=None, fixed={})


class EncoderSession(OpenVinoSession):
    """One pass per call; with several streams the rows of a batch are shared out among them."""

    def __init__(self, compiled: Compiled, device: str) -> None:
        super().__init__(compiled, device)
        self._held: list[Any] = []
        extra = compiled.num_streams - 1
        self._fixed = {shape: model.create_infer_request() for shape, model in compiled.fixed.items()}
        self._requests = [self._request, *(compiled.model.create_infer_request() for _ in range(extra))]

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Logits, or last hidden states (batch x length x hidden)."""
        import numpy
        import torch

        arrays = [as_array(tensor) for tensor in encoder_inputs(batch, self._compiled.about.inputs)]
        self._held = arrays  # until the next call: the engine's graph points to them, whichever request runs on it
        request = self._fixed.get(arrays[0].shape)
        if request is not None:
            return _one_pass(request, arrays)
        rows = len(arrays[0])
        parts = min(rows, len(self._requests))
        if parts == 1:
            return _one_pass(self._request, arrays)
        size = -(-rows // parts)
        used = self._requests[: -(-rows // size)]
        for number, request in enumerate(used):
            set_inputs(request, [array[number * size : (number + 1) * size] for array in arrays])
            request.start_async()
        for request in used:
            request.wait()
        return torch.from_numpy(numpy.concatenate([first_output(request) for request in used]))

    def close(self) -> None:
        del self._requests, self._fixed, self._held
        super().close()


def _one_pass(request: Any, arrays: Sequence[Any]) -> torch.Tensor:
    import torch

    set_inputs(request, arrays)
    infer(request)
    return torch.from_numpy(first_output(request))


def set_inputs(request: Any, arrays: Sequence[Any]) -> None:
    for number, array in enumerate(arrays):
        set_input(request, number, array)


def set_input(request: Any, number: int, array: Any) -> None:
    """The engine reads this array where it is; the caller keeps it until the request is done."""
    import openvino as ov

    request.set_input_tensor(number, ov.Tensor(array, shared_memory=True))


def infer(request: Any) -> None:
    """Run it; the engine's binding would otherwise copy all outputs for a result that nobody reads."""
    request.infer(share_outputs=True)


def first_output(request: Any) -> Any:
    """Copied, because the engine writes the next one over it."""
    return request.get_output_tensor(0).data.copy()


def _text(value: Any) -> Note:
    if isinstance(value, int | float):
        return value
    return value.to_string() if hasattr(value, "to_string") else str(getattr(value, "name", value))
