"""A model's transformer blocks one after the other, each fed with what the already compressed ones before it give.

Only the inputs of one block are held, never those of all: a model whose blocks come and go could be compressed so. Parts
that are no such stack of blocks (or that reuse their blocks) are offered at the end as one block, the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.models.parts import inputs_of, layer_stacks

Watcher = Callable[[torch.Tensor], None]
"""Is given the inputs of one linear module, a row per token (n x in), padding left out."""


class _Enough(Exception):
    """Ends a forward pass whose rest isn't needed."""


class Call(NamedTuple):
    """What one batch hands to a block, and its padding mask (batch x length, True at tokens), if it has one."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mask: torch.Tensor | None


class Block:
    """One transformer block with its calibration inputs. `names` are the chosen modules inside, by their full names."""

    def __init__(self, model: nn.Module, name: str, names: Sequence[str], calls: Sequence[Call]) -> None:
        self.model, self.name, self.names, self.calls = model, name, list(names), list(calls)

    @property
    def module(self) -> nn.Module:
        return self.model.get_submodule(self.name)

    def groups(self) -> list[list[str]]:
        """The chosen modules in the order in which they run, those that read the same tensor (q, k, v) together.

        One that runs several times (ALBERT's layers) counts at its first. Modules that never run come last, each alone.
        """
        seen: list[tuple[torch.Tensor, list[str]]] = []

        def note(name: str, x: torch.Tensor) -> None:
            if any(name in names for _, names in seen):
                return
            same = next((names for tensor, names in seen if tensor is x), None)
            if same is None:
                seen.append((x, [name]))
            else:
                same.append(name)

        with self._hooked({name: partial(note, name) for name in self.names}):
            self._run(self.calls[0])
        found = [names for _, names in seen]
        return [*found, *([name] for name in self.names if not any(name in names for names in found))]

    def observe(self, watchers: Mapping[str, Watcher]) -> None:
        """Run all calibration inputs through the block; every watcher sees the inputs of its module."""
        mask: torch.Tensor | None = None

        def show(watcher: Watcher, x: torch.Tensor) -> None:
            watcher(rows_of(x, mask))

        with self._hooked({name: partial(show, watcher) for name, watcher in watchers.items()}):
            for call in self.calls:
                mask = call.mask
                self._run(call)

    def outputs(self) -> Iterator[torch.Tensor]:
        """The block's hidden states (batch x length x hidden), batch by batch."""
        for call in self.calls:
            yield first_tensor(self._run(call))

    def leave(self) -> list[torch.Tensor]:
        """The outputs of all batches, each in the place of its input: the block can't be run again."""
        outputs = []
        while self.calls:
            outputs.append(first_tensor(self._run(self.calls[0])))
            del self.calls[0]
        return outputs

    def _run(self, call: Call) -> Any:
        with torch.no_grad():
            return self.module(*call.args, **call.kwargs)

    @contextmanager
    def _hooked(self, hooks: Mapping[str, Watcher]) -> Iterator[None]:
        handles = [
            self.model.get_submodule(name).register_forward_pre_hook(lambda _, args, hook=hook: hook(args[0]))
            for name, hook in hooks.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def walk(model: nn.Module, batches: Iterable[Batch], names: Sequence[str]) -> Iterator[Block]:
    """Every block of `model` that holds one of the modules `names`, in order. Change a block while it is yours: the next
    one is fed through it as you leave it.

    `batches` are model inputs, with attention_mask where they are padded. Raises UnsupportedError if there are none.
    """
    inputs = [inputs_of(model, {name: each for name, each in batch.items() if name != "labels"}) for batch in batches]
    if not inputs:
        raise UnsupportedError("there is nothing to calibrate on: not a single batch")
    rest = list(names)
    with _without_cache(model):
        for stack_name, stack in layer_stacks(model):
            inside = [name for name in rest if name.startswith(f"{stack_name}.")]
            passes = _first_pass(model, stack_name, stack, inputs) if inside else None
            if passes is not None:
                yield from _walk_stack(model, stack_name, passes, inside)
                rest = [name for name in rest if name not in inside]
        if rest:
            yield Block(model, "", rest, [Call((), batch, _mask_of(batch, "")) for batch in inputs])


def _walk_stack(model: nn.Module, stack_name: str, passes: list[list[Call]], inside: Sequence[str]) -> Iterator[Block]:
    """`passes` holds the calls of every layer, batch by batch; hidden states are kept for the layer at hand only."""
    num_layers = len(passes[0])
    hidden: list[torch.Tensor] = []
    for index in range(num_layers):
        calls = [calls[index] for calls in passes]
        if hidden:
            calls = [call._replace(args=(states, *call.args[1:])) for call, states in zip(calls, hidden, strict=True)]
        hidden.clear()
        for each in passes:
            each[index] = Call((), {}, None)
        name = f"{stack_name}.{index}"
        block = Block(model, name, [each for each in inside if each.startswith(f"{name}.")], calls)
        if block.names:
            yield block
        hidden = block.leave()
        del calls


def _first_pass(
    model: nn.Module, stack_name: str, stack: nn.ModuleList, inputs: Sequence[dict[str, Any]]
) -> list[list[Call]] | None:
    """What every layer of the stack is called with, per batch; None if the layers don't run one after the other, each
    on what the one before gave.
    """
    passes: list[list[Call]] = []
    for batch in inputs:
        # the first batch goes through to the end, where a layer that is used again would show
        calls, is_chain = _record_calls(model, stack, batch, _mask_of(batch, stack_name), stops=bool(passes))
        if not is_chain or len(calls) != len(stack):
            return None
        passes.append(calls)
    return passes


def _record_calls(
    model: nn.Module, stack: nn.ModuleList, batch: dict[str, Any], mask: torch.Tensor | None, *, stops: bool
) -> tuple[list[Call], bool]:
    """The calls of one forward pass, hidden states kept for the first layer only, and whether they form a chain.

    If it `stops`, what comes after the last layer isn't computed.
    """
    calls: list[Call] = []
    last: list[torch.Tensor] = []
    is_chain = True

    def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal is_chain
        args, kwargs = _positional(args, kwargs)
        expected = stack[len(calls)] if len(calls) < len(stack) else None
        is_chain = is_chain and layer is expected and (not last or last[0] is args[0])
        calls.append(Call(args if not calls else (None, *args[1:]), kwargs, mask))

    def after(layer: nn.Module, _: Any, output: Any) -> None:
        last[:] = [first_tensor(output)]
        if stops and layer is stack[-1]:
            raise _Enough

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in stack]
    handles += [layer.register_forward_hook(after) for layer in stack]
    try:
        with torch.no_grad():
            model(**batch)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return calls, is_chain


def _positional(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hidden states as the first positional argument, whichever way they were given."""
    if not args:
        kwargs = dict(kwargs)
        args = (kwargs.pop("hidden_states"),)
    return args, kwargs


def _mask_of(batch: Mapping[str, Any], stack_name: str) -> torch.Tensor | None:
    name = "attention_mask"
    if "decoder" in stack_name.split(".") and "decoder_input_ids" in batch:
        name = "decoder_attention_mask"
    mask = batch.get(name)
    return None if mask is None else mask.bool()


def rows_of(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """A row per token (n x features) of activations (... x features), without those that `mask` (batch x length) hides.

    Activations of another shape than the mask's (a pooled vector per sentence, an encoder's frames) are taken whole.
    """
    rows = x.detach().reshape(-1, x.shape[-1])
    if mask is None or bool(mask.all()):
        return rows
    is_per_token = x.shape[:-1] == mask.shape or (x.dim() == 2 and len(rows) == mask.numel())
    return rows[mask.reshape(-1)] if is_per_token else rows


def first_tensor(output: Any) -> torch.Tensor:
    """A block's hidden states, whether it returns them alone or first in a tuple."""
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return found


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """No key-value cache: a block that is run again must not see its own earlier keys."""
    config: Any = model.config
    configs: list[Any] = [each for each in (config, getattr(config, "text_config", None)) if hasattr(each, "use_cache")]
    before = [each.use_cache for each in configs]
    for each in configs:
        each.use_cache = False
    try:
        yield
    finally:
        for each, value in zip(configs, before, strict=True):
            each.use_cache = value
