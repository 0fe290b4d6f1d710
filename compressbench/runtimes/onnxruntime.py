"""`onnxruntime`: the model as an ONNX graph in ONNX Runtime, in floats, or in 8 or 4 bits by the engine's own kernels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.calibration import Calibration
from compressbench.core.deploying import Deployed, Note, RuntimeFacts
from compressbench.core.errors import UnsupportedError
from compressbench.core.files import file_sha256
from compressbench.core.protocols import Batch, Session
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.exported import files_bytes, open_processor, prepare_from_files, read_manifest

if TYPE_CHECKING:
    from compressbench.runtimes.onnx_export import GraphFacts
    from compressbench.runtimes.onnx_quantize import Quantization
    from compressbench.runtimes.onnx_session import Opening

_REQUIRES = ("onnx", "onnxruntime", "onnxscript")
_HEADS = frozenset({"sequence-classification", "feature-extraction", "image-classification", "causal-lm"})
_FLOATS = frozenset({"float32", "bfloat16", "float16"})


class OnnxRuntime(Spec):
    """Exported by PyTorch's dynamo exporter with dynamic batch and length; attention and cache are the engine's own.

    As many threads as PyTorch has. They wait asleep: by the engine's own default they spin after a call, for 42 ms of CPU
    time on 2 cores, which is taken from what runs next, another arm's calls among them. With `spinning` they spin within
    a call and are stopped at its end. Sleeping was the faster on 2 shared cores (4.4 against 7.5 ms for MiniLM in int8);
    where cores are idle it can be the other way round.
    """

    provider: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: that of the run's device")
    graph_optimization: Literal["all", "extended", "basic", "disabled"] = "all"
    quantize: Literal["none", "int8-dynamic", "int8-static", "int8-blocks", "int4"] = Field(
        "none",
        description="int8-dynamic: activations by each call's own range; int8-static: by calibration; "
        "int8-blocks and int4: weights in blocks with a scale each (MatMulNBits)",
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="float16 needs CUDA")
    per_channel: bool = Field(True, description="a scale for each output of an int8 product, not one for all")
    reduce_range: bool = Field(True, description="7-bit weights of int8: no sum saturates, whatever the CPU")
    block_size: Literal[16, 32, 64, 128, 256] = Field(32, description="weights per scale of int4 and int8-blocks")
    accuracy_level: Literal[0, 1, 4] = Field(
        4, description="what int4 and int8-blocks multiply in: 4: int8 activations, 1: float32, 0: the kernel's choice"
    )
    leave_out: tuple[str, ...] = Field((), description="parts of names of modules that aren't quantized")
    calibration: Calibration = Field(Calibration(), description="samples for int8-static")
    opset: int = Field(20, ge=18, le=23)
    spinning: bool = Field(False, description="threads wait for the next product of a call by spinning")

    requires: ClassVar[tuple[str, ...]] = _REQUIRES

    @model_validator(mode="after")
    def _goes_together(self) -> OnnxRuntime:
        if self.dtype == "float16" and self.provider == "cpu":
            raise ValueError("float16 on the CPU is converted to float32 around every product: use float32")
        if self.dtype == "float16" and self.quantize != "none":
            raise ValueError("quantize works on float32 graphs: use dtype float32")
        return self

    @property
    def facts(self) -> RuntimeFacts:
        devices = {"cpu": frozenset({"cpu", "cuda"}), "cuda": frozenset({"cuda"})}
        is_gpu_only = self.dtype == "float16" or self.provider == "cuda"
        return RuntimeFacts(
            accepts=_FLOATS,
            heads=_HEADS,
            devices=devices["cuda" if is_gpu_only else "cpu"],
            requires=_REQUIRES,
            extra="onnxruntime",
            needs_calibration=self.quantize == "int8-static",
            is_exact=self.quantize == "none" and self.dtype == "float32",
        )

    def prepare(self, handle: ModelHandle, device: str) -> Session:
        return prepare_from_files(self, "onnxruntime", handle, device)

    def export(self, handle: ModelHandle, folder: Path) -> Mapping[str, float]:
        """model.onnx (weights of more than 1 GiB beside it) and what a session must know of it."""
        import torch

        from compressbench.runtimes.onnx_export import MODEL, GraphFacts, export_graph, write_facts
        from compressbench.runtimes.onnx_quantize import quantize, weight_bytes

        begun = time.perf_counter()
        target = folder / MODEL
        source = target if self.quantize == "none" else folder / "floats" / MODEL
        source.parent.mkdir(exist_ok=True)
        is_untied = self.quantize != "none"
        names, cache = export_graph(handle, source, self.opset, getattr(torch, self.dtype), is_untied)
        exported, left_out = time.perf_counter(), tuple[str, ...]()
        if source != target:
            left_out = quantize(source, target, self._quantization(), self._samples(handle))
            for path in source.parent.iterdir():
                path.unlink()
            source.parent.rmdir()
        sha256 = {path.name: file_sha256(path) for path in sorted(folder.glob(f"{MODEL}*"))}
        write_facts(folder, GraphFacts(names, cache, weight_bytes(target), left_out, sha256))
        seconds = {"export_s": exported - begun}
        return seconds if source == target else seconds | {"quantize_s": time.perf_counter() - exported}

    def open(self, folder: Path, device: str) -> Session:
        import torch

        from compressbench.runtimes.onnx_export import read_facts
        from compressbench.runtimes.onnx_session import EncoderSession, Opened, Opening, providers_of

        begun, manifest, facts = time.perf_counter(), read_manifest(folder), read_facts(folder)
        provider = device.split(":")[0] if self.provider == "auto" else self.provider
        providers_of(provider)
        opening = Opening(provider, self.graph_optimization, torch.get_num_threads(), self.spinning)
        opened = Opened(folder, facts, opening, self._deployed(folder, facts, opening), self._wanted())
        if manifest.head == "causal-lm":
            from compressbench.runtimes.onnx_decoder import DecoderSession

            session: EncoderSession | DecoderSession = DecoderSession(opened, manifest.special, open_processor(folder))
        else:
            session = EncoderSession(opened)
        seconds = {**manifest.seconds, "open_s": time.perf_counter() - begun}
        session.deployed = opened.deployed.model_copy(update={"seconds": seconds})
        return session

    def _quantization(self) -> Quantization:
        from compressbench.runtimes.onnx_quantize import Quantization as Chosen

        names = ("per_channel", "reduce_range", "block_size", "accuracy_level")
        return Chosen(kind=self.quantize, left_out=self.leave_out, **{name: getattr(self, name) for name in names})

    def _samples(self, handle: ModelHandle) -> Iterable[Batch] | None:
        """Calibration samples as the graph takes them."""
        if self.quantize != "int8-static":
            return None
        if handle.head == "causal-lm":
            raise UnsupportedError("int8-static of a decoder would need samples of its cache", do="Use int8-dynamic.")
        if handle.supplies.calibration is None:
            raise UnsupportedError(
                "int8-static needs calibration samples, and this task has none",
                do="Name other data under calibration, or use int8-dynamic.",
            )
        return _model_inputs(handle.supplies.calibration(self.calibration).batches)

    def _wanted(self) -> tuple[str, ...]:
        from compressbench.runtimes.onnx_profile import BLOCKS, INT8

        return {"none": (), "int8-dynamic": INT8, "int8-static": INT8}.get(self.quantize, BLOCKS)

    def _deployed(self, folder: Path, facts: GraphFacts, opening: Opening) -> Deployed:
        from importlib.metadata import version

        notes: dict[str, Note] = {"threads": opening.num_threads, "provider": opening.provider, "opset": self.opset}
        if facts.left_out:
            notes["left_out"] = ", ".join(facts.left_out)
        if self.quantize in ("int4", "int8-blocks"):
            notes |= {"weight_bits": 4 if self.quantize == "int4" else 8, "block_size": self.block_size}
        return Deployed(
            engine=f"onnxruntime {version('onnxruntime')}",
            precision=self._precision(),
            num_files_bytes=files_bytes(folder, (".onnx", ".onnx.data")),
            weight_bytes=facts.weight_bytes,
            cache_item_bytes=facts.cache and (2 if self.dtype == "float16" else 4),
            notes=notes,
        )

    def _precision(self) -> str:
        """What products compute in: MatMulNBits rounds activations to int8 at accuracy level 4, else it unpacks weights."""
        if self.quantize == "none":
            return self.dtype
        is_float = self.quantize in ("int4", "int8-blocks") and self.accuracy_level != 4
        return "float32" if is_float else "int8"


def _model_inputs(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Without labels."""
    for batch in batches:
        yield {name: tensor for name, tensor in batch.items() if name != "labels"}
