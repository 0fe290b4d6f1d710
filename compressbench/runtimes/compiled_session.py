"""A model that `torch-compile` runs: its compiled forward pass, and its compiled (or captured) step of decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.deploying import Deployed, KernelUse, Note
from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.compilations import Compiled, Settings

if TYPE_CHECKING:
    import torch

    from compressbench.runtimes.torch_eager import TorchSession


class Asked(NamedTuple):
    """How to compile. `captures`: the backend makes CUDA graphs of its own; `cuda_graphs`: we capture its step."""

    backend: str
    mode: str
    settings: Settings
    captures: bool
    cuda_graphs: bool


class CompiledSession:
    """Several may live at once (`runtimes.compilations` says why); what one compiled goes with it."""

    def __init__(self, handle: ModelHandle, device: str, asked: Asked) -> None:
        from compressbench.models.own_decoding import special_tokens
        from compressbench.runtimes.static_decoding import StaticSteps, has_static_cache
        from compressbench.runtimes.torch_eager import TorchSession

        self.device, self._asked = device, asked
        self._model = handle.model.to(device).eval()
        self._eager: TorchSession = TorchSession(self._model, device, handle.tokenizer)
        self._tokenizer = handle.tokenizer
        self._special = special_tokens(self._model, handle.tokenizer)
        self._precision = product_precision(self._model, handle.weights)
        self._forward = Compiled(_forward_of(self._model), asked.settings)
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
        parts, asked = self._compiled, self._asked
        reasons = [reason for each in parts for reason in each.reasons]
        notes: dict[str, Note] = {
            "num_graphs": sum(each.num_graphs for each in parts),
            "num_recompilations": len(reasons),
            "num_graph_breaks": sum(each.num_graph_breaks for each in parts),
        }
        if asked.mode != "default":
            notes["mode"] = asked.mode
        if reasons:
            notes["last_recompilation"] = reasons[-1]
        return Deployed(
            engine=f"torch {version} {asked.backend}",
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
        return self.device.startswith("cuda") and self._asked.captures

    def _make_step(self, inputs: tuple[Any, ...]) -> Callable[..., Any]:
        """A function of its own for each size of a cache, so that no size is compiled as a symbol."""
        step = Compiled(_step_of(self._model), self._asked.settings)
        self._compiled.append(step)
        if self._asked.cuda_graphs:
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
