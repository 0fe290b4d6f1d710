"""`torch-compile`: the model through torch.compile, decoding with a static key-value cache and a compiled step.

One warning: kernels of inductor on CPU keep the number of threads that was set when they were compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from compressbench.core.deploying import Deployed, KernelUse, Note, RuntimeFacts
from compressbench.core.errors import UnknownNameError, UnsupportedError
from compressbench.core.names import did_you_mean
from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.compilations import Compiled, Settings

if TYPE_CHECKING:
    import torch

    from compressbench.runtimes.torch_eager import TorchSession

_BACKENDS = ("inductor", "eager", "aot_eager", "cudagraphs", "openvino")
_HEADS = frozenset({"sequence-classification", "feature-extraction", "image-classification", "causal-lm"})
_Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class TorchCompile(Spec):
    """torch.compile in inference mode; the weights stay in the type and form that the handle has them in.

    Where a batch has a new shape, dynamo may compile again (`dynamic: null` makes sizes symbolic from the second on).
    A prompt is read in eager mode, and every step after it has one compiled graph; `cuda_graphs` captures that step by
    torch.cuda.CUDAGraph itself, which is another way to the same end as `mode: reduce-overhead`. `freezing` lets inductor
    fold weights into constants and reorder them for its kernels, which costs their memory a second time.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch",)

    backend: str = Field("inductor", description="One that torch lists, such as inductor, eager or aot_eager.")
    mode: _Mode = Field("default", description="Of inductor: what it optimizes for.")
    dynamic: bool | None = Field(None, description="Symbolic sizes: always, never, or null: from the second size on.")
    fullgraph: bool = Field(False, description="Fail where a part of the model would be left to eager PyTorch.")
    freezing: bool = Field(False, description="Of inductor on CPU: weights are constants, in its kernels' own order.")
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
        if self.backend != "inductor" and (self.mode != "default" or self.freezing):
            raise ValueError(f"mode and freezing are settings of inductor (got backend {self.backend})")
        if self.cuda_graphs and self.captures:
            raise ValueError("cuda_graphs would capture what this backend or mode captures already")
        return self

    @property
    def captures(self) -> bool:
        """Whether the backend makes CUDA graphs itself, on a CUDA device."""
        return self.backend == "cudagraphs" or self.mode in ("reduce-overhead", "max-autotune")

    @property
    def facts(self) -> RuntimeFacts:
        needs_cuda = self.cuda_graphs or self.backend == "cudagraphs"
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
        return CompiledSession(handle, device, self)

    def settings(self, device: str) -> Settings:
        """What goes to torch.compile."""
        arguments: dict[str, Any] = {"backend": self.backend, "dynamic": self.dynamic, "fullgraph": self.fullgraph}
        if self.backend != "inductor":
            return Settings(arguments, {})
        from torch._inductor import list_mode_options

        options = {} if self.mode == "default" else dict(list_mode_options(self.mode, bool(self.dynamic)))
        if self.freezing:
            options["freezing"] = True
        if device == "cpu":
            options["cpp.enable_kernel_profile"] = True  # fused kernels have names in a profile, at no cost without one
        return Settings({**arguments, "options": options}, {"freezing": True} if self.freezing else {})


class CompiledSession:
    """Several may live at once (`runtimes.compilations` says why); what one compiled goes with it."""

    def __init__(self, handle: ModelHandle, device: str, runtime: TorchCompile) -> None:
        from compressbench.models.own_decoding import special_tokens
        from compressbench.runtimes.static_decoding import StaticSteps, has_static_cache
        from compressbench.runtimes.torch_eager import TorchSession

        self.device, self._runtime = device, runtime
        self._model = handle.model.to(device).eval()
        self._eager: TorchSession = TorchSession(self._model, device, handle.tokenizer)
        self._tokenizer = handle.tokenizer
        self._special = special_tokens(self._model, handle.tokenizer)
        self._precision = product_precision(self._model, handle.weights)
        self._settings = runtime.settings(device)
        self._forward = Compiled(_forward_of(self._model), self._settings)
        self._compiled = [self._forward]
        is_static = handle.head == "causal-lm" and has_static_cache(self._model)
        self._steps = StaticSteps(self._model, device, self._make_step) if is_static else None

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Logits; of an encoder without a head its last hidden states (batch x length x hidden)."""
        import torch

        with torch.inference_mode():
            found: torch.Tensor = self._forward(**self._eager.on_device(batch))
        return found.clone() if self._keeps_outputs else found

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        """Greedy by exactly `num_tokens` tokens; eager, with a cache that grows, where the model has no static one."""
        from compressbench.models.own_decoding import greedy

        if self._steps is None:
            return self._eager.generate(batch, num_tokens, on_token)
        return greedy(self._steps, self._eager.on_device(batch), num_tokens, self._special.end, on_token)

    def write(self, batch: Batch, decoding: Decoding) -> list[Written]:
        """Texts for left-padded prompts, each up to its own end (`models.own_decoding`)."""
        from compressbench.models.own_decoding import write

        if self._steps is None:
            return self._eager.write(batch, decoding)
        return write(self._steps, self._tokenizer, self._special, batch, decoding)

    def kv_cache_bytes(self, batch: Batch, num_tokens: int) -> int | None:
        """What the cache of a generation occupies: all of its positions are there from the beginning."""
        import torch

        if self._steps is None or not num_tokens:
            return self._eager.kv_cache_bytes(batch, num_tokens)
        rows, length = batch["input_ids"].shape
        with torch.inference_mode():
            return self._steps.cache_bytes(rows, length + num_tokens - 1)

    def synchronize(self) -> None:
        self._eager.synchronize()

    def close(self) -> None:
        """Let go of the model and of what was compiled for it, and of nothing that another session uses."""
        self._eager.close()
        del self._model, self._forward, self._compiled, self._steps

    @property
    def deployed(self) -> Deployed:
        import torch

        version = torch.__version__.partition("+")[0]
        parts, kept = self._compiled, self._runtime
        reasons = [reason for each in parts for reason in each.reasons]
        notes: dict[str, Note] = {
            "num_graphs": sum(each.num_graphs for each in parts),
            "num_recompilations": len(reasons),
            "num_graph_breaks": sum(each.num_graph_breaks for each in parts),
        }
        if kept.mode != "default":
            notes["mode"] = kept.mode
        if reasons:
            notes["last_recompilation"] = reasons[-1]
        return Deployed(
            engine=f"torch {version} {kept.backend}",
            precision=self._precision,
            seconds={"compile_s": sum(each.seconds for each in parts)},
            notes=notes,
        )

    def kernels(self, batch: Batch, output_tokens: int | None = None) -> KernelUse | None:
        """Operators and fused kernels of one call, with the types of the tensors that they read."""
        from compressbench.runtimes.torch_profile import profiled

        def call() -> None:
            if output_tokens is None:
                self(batch)
            else:
                self.generate(batch, output_tokens)
            self.synchronize()

        fallbacks = tuple(self._fallbacks(output_tokens))  # before: the profiled call may have another shape
        return KernelUse(profiled(call, self.device), ("Torch-Compiled Region",), fallbacks)

    def _fallbacks(self, output_tokens: int | None) -> Iterator[str]:
        import torch

        for each in self._compiled:
            yield from each.fallbacks()
            if self.device == "cpu" and each.num_threads not in (None, torch.get_num_threads()):
                yield f"kernels compiled for {each.num_threads} threads ran where {torch.get_num_threads()} are set"
        if output_tokens is not None and self._steps is None:
            yield f"a {type(self._model).__name__} has no static cache: decoding ran in eager PyTorch"

    @property
    def _keeps_outputs(self) -> bool:
        """Whether the next call overwrites what this one gave."""
        return self.device.startswith("cuda") and self._runtime.captures

    def _make_step(self, inputs: tuple[Any, ...]) -> Callable[..., Any]:
        """A function of its own for each size of a cache, so that no size is compiled as a symbol."""
        step = Compiled(_step_of(self._model), self._settings)
        self._compiled.append(step)
        if self._runtime.cuda_graphs:
            from compressbench.runtimes.cuda_graphs import GraphedStep

            tokens, positions, mask, cache = inputs
            graphed = GraphedStep(lambda *given: step(*given, cache), (tokens, positions, mask))
            return lambda *given: graphed(*given[:3])
        return _marking_steps(step) if self._keeps_outputs else step


def product_precision(model: Any, weights: str) -> str:
    """What most of the linear layers multiply in: a layer that stores codes may compute in another type."""
    from compressbench.models.size import stored_layers

    dtype = str(model.dtype).removeprefix("torch.")
    kinds = {_precision_of(layer, dtype) for layer in stored_layers(model).values()}
    return "/".join(sorted(kinds)) or (dtype if weights in ("int8", "packed") else weights)


def _precision_of(layer: Any, dtype: str) -> str:
    if layer.kind == "int4":
        return "bfloat16"
    weight = getattr(layer, "weight", None)
    is_dynamic = "act_quant" in repr(weight.__dict__.keys()) if layer.kind == "torchao" else False
    return "int8" if layer.kind in ("int8-dynamic", "bnb-int8") or is_dynamic else dtype


def _forward_of(model: Any) -> Callable[..., Any]:
    import inspect

    has_cache = "use_cache" in inspect.signature(model.forward).parameters
    options: Mapping[str, Any] = {"use_cache": False} if has_cache else {}

    def forward(**inputs: Any) -> Any:
        output = model(**inputs, **options)
        return output.logits if hasattr(output, "logits") else output.last_hidden_state

    return forward


def _step_of(model: Any) -> Callable[..., Any]:
    from compressbench.runtimes.static_decoding import last_logits

    def step(tokens: Any, positions: Any, mask: Any, cache: Any) -> Any:
        return last_logits(model, tokens, positions, mask, cache)

    return step


def _marking_steps(step: Callable[..., Any]) -> Callable[..., Any]:
    """CUDA graphs of inductor must be told where one step ends and the next begins."""
    import torch

    def marked(*inputs: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return step(*inputs)

    return marked


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
