"""Which tables of vectors (embeddings) a model has, and a stored layer in the place of one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.models.parts import matches, tensors_used_twice
from compressbench.models.stored_layer import StoredLayer


class StoredEmbedding(StoredLayer):
    """A table (num_embeddings x embedding_dim) that rows are looked up in: `forward` takes ids of any shape."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(embedding_dim, num_embeddings)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim


class Tables(NamedTuple):
    """The names of the tables to work on, and why others are left as they are, by name."""

    names: tuple[str, ...]
    left_out: dict[str, str]

    def without(self, reasons: dict[str, str]) -> Tables:
        """These but for some, with the reasons. Raises UnsupportedError if none is left."""
        names = tuple(name for name in self.names if name not in reasons)
        left_out = {**self.left_out, **reasons}
        if not names:
            raise _none_left(left_out)
        return Tables(names, left_out)


def choose_tables(
    model: nn.Module, targets: Sequence[str], ignore: Sequence[str], misfit: Callable[[nn.Embedding], str]
) -> Tables:
    """Every embedding that is a plain one and of which `misfit` says nothing. `targets` and `ignore` are module names,
    parts of them, or `re:` patterns.

    A table whose tensor is also another module's (an lm_head that is tied to it) is never chosen: that module multiplies
    by the whole of it. Raises UnsupportedError if none is left.
    """
    shared, reasons = tensors_used_twice(model), dict[str, str]()
    for name, module in model.named_modules():
        if type(module) is nn.Embedding:
            is_tied = module.weight.data_ptr() in shared
            reasons[name] = _why_left_out(name, module, is_tied, targets, ignore) or misfit(module)
    chosen = Tables(tuple(name for name in reasons if not reasons[name]), {n: why for n, why in reasons.items() if why})
    if not chosen.names:
        raise _none_left(chosen.left_out)
    return chosen


def table_of(model: nn.Module, name: str) -> nn.Embedding:
    return cast(nn.Embedding, model.get_submodule(name))


def _why_left_out(name: str, module: nn.Embedding, is_tied: bool, targets: Sequence[str], ignore: Sequence[str]) -> str:
    if is_tied:
        return "its rows are tied to another module's weights, which multiplies by all of them"
    if targets and not matches(name, targets):
        return "not among the targets"
    if matches(name, ignore):
        return "ignored by the recipe"
    return "it changes its rows when they are looked up (max_norm)" if module.max_norm is not None else ""


def _none_left(reasons: dict[str, str]) -> UnsupportedError:
    got = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:3]) or "no plain embedding"
    return UnsupportedError(
        "no embedding table is left to compress", got=got, do="Use another model, or step, or other targets."
    )
