"""`torch-compile`: the model through torch.compile, decoding with a static key-value cache and a compiled step.

One warning: kernels of inductor on CPU keep the number of threads that was set when they were compiled.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from compressbench.core.deploying import RuntimeFacts
from compressbench.core.errors import UnknownNameError, UnsupportedError
from compressbench.core.names import did_you_mean
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.compilations import Settings
from compressbench.runtimes.compiled_session import Asked, CompiledSession

_BACKENDS = ("inductor", "eager", "aot_eager", "cudagraphs", "openvino")
_HEADS = frozenset({"sequence-classification", "feature-extraction", "image-classification", "causal-lm"})
_Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

_SILENT_SEARCH = {"autotune_num_choices_displayed": 0, "max_autotune_report_choices_stats": False}


class TorchCompile(Spec):
    """torch.compile in inference mode; the weights stay in the type and form that the handle has them in.

    Where a batch has a new shape, dynamo may compile again (`dynamic: null` makes sizes symbolic from the second on).
    A prompt is read in eager mode, and every step after it has one compiled graph; `cuda_graphs` captures that step by
    torch.cuda.CUDAGraph itself, which is another way to the same end as `mode: reduce-overhead`. `freezing` lets inductor
    fold weights into constants and reorder them for its kernels, which costs their memory a second time.
    `coordinate_descent` tunes inductor's kernels on CUDA one parameter after the other, and makes the product of a single
    row a reduction that reads int8 weights as they are stored: what gpt-fast sets (https://github.com/pytorch-labs/gpt-fast).
    """

    requires: ClassVar[tuple[str, ...]] = ("torch",)

    backend: str = Field("inductor", description="One that torch lists, such as inductor, eager or aot_eager.")
    mode: _Mode = Field("default", description="Of inductor: what it optimizes for.")
    dynamic: bool | None = Field(None, description="Symbolic sizes: always, never, or null: from the second size on.")
    fullgraph: bool = Field(False, description="Fail where a part of the model would be left to eager PyTorch.")
    freezing: bool = Field(False, description="Of inductor on CPU: weights are constants, in its kernels' own order.")
    coordinate_descent: bool = Field(False, description="Of inductor on CUDA: tune kernels, and products of one row.")
    cuda_graphs: bool = Field(False, description="On CUDA: capture the decoding step in a CUDA graph.")

    @field_validator("backend")
    @classmethod
    def _is_listed(cls, backend: str) -> str:
        known = {*_BACKENDS, *(point.name for point in entry_points(group="torch_dynamo_backends"))}
        if backend not in known:
            raise ValueError(f"unknown backend '{backend}'. {did_you_mean(backend, known)}")
        return backend

    @model_validator(mode="after")
    def _fits_the_backend(self) -> TorchCompile:
        if self.backend != "inductor" and (self.mode != "default" or self.freezing or self.coordinate_descent):
            what = "mode, freezing and coordinate_descent are settings of inductor"
            raise ValueError(f"{what} (got backend {self.backend})")
        if self.freezing and self.coordinate_descent:
            raise ValueError("freezing is of inductor on CPU, coordinate_descent of inductor on CUDA: give one of them")
        if self.cuda_graphs and self.captures:
            raise ValueError("cuda_graphs would capture what this backend or mode captures already")
        return self

    @model_serializer(mode="wrap")
    def _leaves_out_what_older_records_lack(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that a runtime without it is the one that it was before there was such a setting."""
        found: dict[str, Any] = serialize(self)
        if not found.get("coordinate_descent"):
            found.pop("coordinate_descent", None)
        return found

    @property
    def captures(self) -> bool:
        """Whether the backend makes CUDA graphs itself, on a CUDA device."""
        return self.backend == "cudagraphs" or self.mode in ("reduce-overhead", "max-autotune")

    @property
    def facts(self) -> RuntimeFacts:
        needs_cuda = self.cuda_graphs or self.coordinate_descent or self.backend == "cudagraphs"
        return RuntimeFacts(
            heads=_HEADS,
            devices=frozenset({"cuda"} if needs_cuda else {"cpu"} if self.freezing else {"cpu", "cuda"}),
            requires=("torch", "openvino") if self.backend == "openvino" else ("torch",),
            is_exact=self.backend != "openvino",
        )

    def prepare(self, handle: ModelHandle, device: str) -> CompiledSession:
        """Nothing is compiled before the first call. Raises UnsupportedError without a C++ compiler for inductor."""
        if handle.head not in _HEADS:
            raise UnsupportedError(f"torch-compile doesn't run models for {handle.head}", do="Use the runtime torch.")
        if self.cuda_graphs and not device.startswith("cuda"):
            raise UnsupportedError("cuda_graphs needs a CUDA device", got=device)
        _check_backend(self.backend)
        asked = Asked(self.backend, self.mode, self.settings(device), self.captures, self.cuda_graphs)
        return CompiledSession(handle, device, asked)

    def settings(self, device: str) -> Settings:
        """What goes to torch.compile."""
        arguments: dict[str, Any] = {"backend": self.backend, "dynamic": self.dynamic, "fullgraph": self.fullgraph}
        if self.backend != "inductor":
            return Settings(arguments, {})
        from torch._inductor import list_mode_options

        options = {} if self.mode == "default" else dict(list_mode_options(self.mode, bool(self.dynamic)))
        if options.get("max_autotune"):
            options |= _SILENT_SEARCH
        if self.freezing:
            options["freezing"] = True
        if self.coordinate_descent:
            options["coordinate_descent_tuning"] = True
        if device == "cpu":
            options["cpp.enable_kernel_profile"] = True  # fused kernels have names in a profile, at no cost without one
        return Settings({**arguments, "options": options}, {"freezing": True} if self.freezing else {})


def _check_backend(backend: str) -> None:
    import torch

    if backend == "openvino":
        import openvino.torch  # noqa: F401 -- registers itself
    known = torch.compiler.list_backends(exclude_tags=None)
    if backend not in known:
        raise UnknownNameError(f"this torch has no backend '{backend}'", do=did_you_mean(backend, known))
    if backend == "inductor":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise UnsupportedError(
                "inductor needs a C++ compiler, and there is none",
                do="Install one (Debian: apt-get install g++), or set CXX; backend: aot_eager runs without.",
            ) from error
