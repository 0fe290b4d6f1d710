"""`openvino`: the CPU plugin of OpenVINO, with NNCF for int8 and int4 weights.

Left to itself OpenVINO computes in bfloat16 where the processor can, keeps keys and values in int8, rounds activations to
int8 in front of compressed weights, and pins its threads to cores. All four are set here: a float32 row is float32,
and a pinned thread that shares its core waits for it (2 cores with much other work: steps 1.4 to 4.5 times slower).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from compressbench.core.deploying import RuntimeFacts
from compressbench.core.errors import MissingDependencyError, ModelError, UnsupportedError
from compressbench.core.protocols import Session
from compressbench.core.registry import missing_distributions
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.exported import open_processor, prepare_from_files, read_manifest
from compressbench.runtimes.openvino_compress import Quantization, quantize
from compressbench.runtimes.openvino_consent import decline_telemetry

HEADS = frozenset({"sequence-classification", "feature-extraction", "image-classification", "causal-lm"})
ACCEPTS = frozenset({"float32", "bfloat16", "float16"})
_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


class OpenVino(Quantization):
    """OpenVINO on the CPU. Threads are PyTorch's number of them."""

    requires: ClassVar[tuple[str, ...]] = ("openvino",)

    hint: Literal["latency", "throughput"] = Field(
        "latency", description="throughput: a batch is shared out among streams of one thread"
    )
    num_streams: int | None = Field(None, ge=1, le=64, description="for throughput; default: one per thread")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32", description="of what isn't quantized; auto: what OpenVINO chooses, bfloat16 on many processors"
    )
    activation_group: int = Field(
        0, ge=0, description="weights alone: activations that share a scale when rounded to int8 at run time; 0: never"
    )
    static_shapes: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        (),
        max_length=8,
        description="encoders: (batch, length) of inputs that get a graph of their own, with its memory",
    )
    kv_cache: Literal["precision", "int8"] = Field("precision", description="what a decoder keeps keys and values in")

    @model_validator(mode="after")
    def _goes_together(self) -> OpenVino:
        if self.num_streams is not None and self.hint != "throughput":
            raise ValueError("num_streams needs hint: throughput")
        if self.static_shapes and self.hint == "throughput":
            raise ValueError("static_shapes need hint: latency: a batch of one shape is one request of one thread")
        if self.activation_group and not self.quantize.endswith("-weights"):
            raise ValueError("activation_group needs quantize: int8-weights or int4-weights")
        return self

    @property
    def facts(self) -> RuntimeFacts:
        return RuntimeFacts(
            accepts=ACCEPTS,
            heads=HEADS,
            devices=frozenset({"cpu"}),
            requires=self.requires if self.quantize == "none" else (*self.requires, "nncf"),
            extra="openvino",
            needs_calibration=self.quantize == "int8",
            is_exact=self.quantize == "none" and self.precision == "float32" and self.kv_cache == "precision",
        )

    def prepare(self, handle: ModelHandle, device: str) -> Session:
        return prepare_from_files(self, "openvino", handle, device)

    def export(self, handle: ModelHandle, folder: Path) -> Mapping[str, float]:
        """openvino_model.xml and .bin, and what they are. Raises UnsupportedError with the reason."""
        import time

        self._require_installed()
        decline_telemetry()
        import openvino as ov

        from compressbench.runtimes.openvino_convert import convert
        from compressbench.runtimes.openvino_feeding import feed_for
        from compressbench.runtimes.openvino_session import MODEL, write_about
        from compressbench.runtimes.openvino_weights import weight_bytes

        if handle.weights not in ACCEPTS:
            raise UnsupportedError("openvino starts from floating-point weights", got=handle.weights)
        begun = time.perf_counter()
        converted = convert(handle)
        traced = time.perf_counter()
        feed = feed_for(converted.inputs, is_decoder=bool(converted.cache))
        graph, notes = quantize(converted.model, self, handle, feed)
        done = time.perf_counter()
        ov.save_model(graph, folder / MODEL, compress_to_fp16=self.precision in ("bfloat16", "float16"))
        saved = ov.Core().read_model(folder / MODEL)
        write_about(folder, converted.inputs, converted.cache, weight_bytes=weight_bytes(saved), notes=notes)
        return {"convert_s": traced - begun, **({"quantize_s": done - traced} if self.quantize != "none" else {})}

    def open(self, folder: Path, device: str) -> Session:
        """Raises ModelError if a file is missing or isn't what was exported."""
        if device != "cpu":
            raise ModelError("openvino runs on the CPU here", got=device)
        self._require_installed()
        decline_telemetry()
        from compressbench.runtimes.openvino_decoder import DecoderSession
        from compressbench.runtimes.openvino_session import EncoderSession, Settings, compile_files

        kept = self.precision if self.kv_cache == "precision" else "int8"
        settings = Settings(self._settings(), self.static_shapes)
        compiled = compile_files(folder, settings, (self.quantize, self.precision), _ITEM_BYTES.get(kept, 2))
        manifest = read_manifest(folder)
        compiled = compiled._replace(seconds={**manifest.seconds, **compiled.seconds})
        if not compiled.about.cache:
            return EncoderSession(compiled, device)
        return DecoderSession(compiled, device, manifest.special, lambda: open_processor(folder))

    def _settings(self) -> dict[str, Any]:
        """Of the plugin. A decoder's steps follow one another, so it has one stream whatever the hint."""
        import torch

        threads = torch.get_num_threads()
        streams = min(self.num_streams or threads, threads) if self.hint == "throughput" else 1
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": self.hint.upper(),
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.activation_group,
        }
        if self.precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[self.precision]
        kept = "u8" if self.kv_cache == "int8" else _HINTS.get(self.precision)
        return settings if kept is None else {**settings, "KV_CACHE_PRECISION": kept}

    def _require_installed(self) -> None:
        missing = missing_distributions(self.facts.requires)
        if missing:
            raise MissingDependencyError(
                f"openvino needs {', '.join(missing)}", do='Install it: pip install "compressbench[openvino]".'
            )
