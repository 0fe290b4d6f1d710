"""Which linear modules have to be cut together to make a model narrower, and which keys of config.json say how wide it is.

Nothing heavy is imported at the top, so that a recipe can be checked against a configuration without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


class Stack(NamedTuple):
    """A list of layers and its feed-forward blocks: neuron i is row i of all of `up` and column i of `down`.

    `layers` is where the list's name ends, `depth` and `size` are keys of the configuration, the others are names
    within a layer.
    """

    layers: str
    depth: str
    size: str
    up: tuple[str, ...]
    down: str


class Heads(NamedTuple):
    """Attention whose configuration can say head_dim, and so fewer heads: names within a layer.

    Group i is one key-value head with the query heads that read it; `groups` is the key that counts them. `divides`:
    the configuration refuses a number of query heads that does not divide hidden_size.
    """

    groups: str
    attention: str
    divides: bool = False


class Family(NamedTuple):
    """How one model type spells what can be cut. Without `heads`, head size is derived from hidden_size / heads, so that
    no configuration describes a model with some heads removed.
    """

    stacks: tuple[Stack, ...]
    heads: Heads | None = None


_QUERY, _KEY, _VALUE, _OUTPUT = "q_proj", "k_proj", "v_proj", "o_proj"
_GATED = (Stack("layers", "num_hidden_layers", "intermediate_size", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),)
_DECODER = Family(_GATED, Heads("num_key_value_heads", "self_attn"))
_STRICT_DECODER = Family(_GATED, Heads("num_key_value_heads", "self_attn", divides=True))
_BERT = Family((Stack("layer", "num_hidden_layers", "intermediate_size", ("intermediate.dense",), "output.dense"),))
_VIT = Family(
    (Stack("layers", "num_hidden_layers", "intermediate_size", ("mlp.fc1",), "mlp.fc2"),),
    Heads("num_attention_heads", "attention"),
)
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("mistral", "qwen2", "qwen3", "smollm3", "gemma"), _DECODER),
    **dict.fromkeys(("llama", "gemma2"), _STRICT_DECODER),
    **dict.fromkeys(("bert", "mean-pool-bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet"), _BERT),
    **dict.fromkeys(("vit", "deit"), _VIT),
    "distilbert": Family((Stack("layer", "n_layers", "hidden_dim", ("ffn.lin1",), "ffn.lin2"),)),
    "gpt2": Family((Stack("h", "n_layer", "n_inner", ("mlp.c_fc",), "mlp.c_proj"),)),
    "whisper": Family(
        (
            Stack("encoder.layers", "encoder_layers", "encoder_ffn_dim", ("fc1",), "fc2"),
            Stack("decoder.layers", "decoder_layers", "decoder_ffn_dim", ("fc1",), "fc2"),
        )
    ),
}


def family_of(config: Mapping[str, Any]) -> Family:
    """How the model type of a configuration spells its parts. Raises UnsupportedError if that is not known."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UnsupportedError(
            "it is not known how to make this kind of model narrower",
            got=f"model_type {kind}",
            do=f"Known: {', '.join(sorted(FAMILIES))}.",
        )
    return FAMILIES[str(kind)]


def feed_forward_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Neurons of one layer by configuration key, as far as the configuration says it."""
    sizes = {stack.size: config.get(stack.size) for stack in family_of(config).stacks}
    if sizes.get("n_inner", 0) is None and isinstance(config.get("n_embd"), int):
        sizes["n_inner"] = 4 * config["n_embd"]  # what GPT-2 means by leaving it out
    return {key: size for key, size in sizes.items() if isinstance(size, int)}


class HeadCounts(NamedTuple):
    """Attention of one layer: `groups` key-value heads, each read by `per_group` query heads, of `head_dim` values."""

    groups: int
    per_group: int
    head_dim: int


def head_counts(config: Mapping[str, Any]) -> HeadCounts | None:
    """None as far as the configuration does not say it. Raises UnsupportedError if it could not describe fewer heads."""
    heads = family_of(config).heads
    if heads is None:
        raise UnsupportedError(
            "a configuration of this kind derives the size of a head from hidden_size and can't describe fewer heads",
            got=f"model_type {config.get('model_type')}",
            do="Prune its feed-forward neurons: ffn_ratio or intermediate_size.",
        )
    queries, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    groups = config.get(heads.groups, 0)
    groups = queries if groups is None else groups
    if not (isinstance(queries, int) and isinstance(hidden, int) and isinstance(groups, int) and groups):
        return None
    return HeadCounts(groups, queries // groups, config.get("head_dim") or hidden // queries)


def head_changes(config: Mapping[str, Any], counts: HeadCounts, groups: int) -> dict[str, int]:
    """Configuration keys of a model that keeps `groups` groups. Raises UnsupportedError if it would refuse them."""
    heads = family_of(config).heads
    queries, hidden = groups * counts.per_group, config["hidden_size"]
    assert heads is not None  # noqa: S101 -- head_counts saw to it
    if heads.divides and hidden % queries:
        fitting = [count * counts.per_group for count in range(1, counts.groups)]
        raise UnsupportedError(
            f"a {config.get('model_type')} configuration wants a number of heads that divides hidden_size {hidden}",
            got=f"{queries} heads to keep",
            do=f"Set num_heads to one of {[count for count in fitting if hidden % count == 0]}.",
        )
    return {heads.groups: groups, "num_attention_heads": queries, "head_dim": counts.head_dim}


class Part(NamedTuple):
    """A linear module in which group i owns the i-th run of `block` outputs (`is_output`) or inputs."""

    name: str
    module: nn.Module
    is_output: bool
    block: int = 1


class Coupled(NamedTuple):
    """Parts of one layer that only work if the same groups are cut from all of them; `key` counts the groups."""

    key: str
    num_groups: int
    parts: tuple[Part, ...]


def couplings(model: PreTrainedModel, keys: Collection[str]) -> list[Coupled]:
    """What has to be cut together in each layer, for the configuration keys that are going to change.

    Raises UnsupportedError if the model does not look as its configuration says.
    """
    config = model.config.to_dict()
    family, sizes, found = family_of(config), feed_forward_sizes(config), list[Coupled]()
    for stack in family.stacks:
        for layer in _layers(model, stack, config[stack.depth]):
            if stack.size in keys:
                ups = [_part(model, f"{layer}.{path}", True) for path in stack.up]
                found.append(Coupled(stack.size, sizes[stack.size], (*ups, _part(model, f"{layer}.{stack.down}"))))
            if family.heads is not None and family.heads.groups in keys:
                found.append(_attention(model, f"{layer}.{family.heads.attention}", family.heads, head_counts(config)))
    for coupled in found:
        _require_shapes(coupled)
    if not found:
        raise UnsupportedError(f"{type(model).__name__} has no layers where {sorted(keys)} would change anything")
    return found


def _layers(model: PreTrainedModel, stack: Stack, count: int) -> list[str]:
    """Names of the layers of a stack; none if this model was built without it."""
    from torch import nn

    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and f".{name}".endswith(f".{stack.layers}")
    ]
    if len(lists) > 1 or any(len(module) != count for _, module in lists):
        raise UnsupportedError(
            f"{type(model).__name__} should have one list '{stack.layers}' of {count} layers",
            got=", ".join(f"{name} of {len(module)}" for name, module in lists),
        )
    return [f"{name}.{index}" for name, _ in lists for index in range(count)]


def _attention(model: PreTrainedModel, name: str, heads: Heads, counts: HeadCounts | None) -> Coupled:
    if counts is None:
        raise UnsupportedError("the configuration does not say how many heads there are", where=name)
    several, one = counts.per_group * counts.head_dim, counts.head_dim
    parts = (
        _part(model, f"{name}.{_QUERY}", True, several),
        _part(model, f"{name}.{_KEY}", True, one),
        _part(model, f"{name}.{_VALUE}", True, one),
        _part(model, f"{name}.{_OUTPUT}", False, several),
    )
    return Coupled(heads.groups, counts.groups, parts)


def _part(model: PreTrainedModel, name: str, is_output: bool = False, block: int = 1) -> Part:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise UnsupportedError(f"{type(model).__name__} has no {name}") from error
    if type(module) not in (nn.Linear, Conv1D):
        raise UnsupportedError("only plain linear modules can be cut", where=name, got=type(module).__name__)
    return Part(name, module, is_output, block)


def _require_shapes(coupled: Coupled) -> None:
    from compressbench.models.parts import matrix

    for part in coupled.parts:
        size, wanted = matrix(part.module).shape[0 if part.is_output else 1], coupled.num_groups * part.block
        if size != wanted:
            raise UnsupportedError(
                f"the configuration says {wanted} {'outputs' if part.is_output else 'inputs'}",
                where=part.name,
                got=str(size),
            )


def cut_dimension(part: Part) -> int:
    """Along which dimension of the stored weight the groups lie; GPT-2's Conv1D keeps inputs x outputs."""
    from transformers.pytorch_utils import Conv1D

    return int(part.is_output == isinstance(part.module, Conv1D))


def cut(part: Part, kept: torch.Tensor) -> None:
    """Keep only the groups `kept` (rising indices) of a module, in place; the tensors that leave are freed."""
    import torch

    index = (kept[:, None] * part.block + torch.arange(part.block, device=kept.device)).flatten()
    names = {"weight": cut_dimension(part)}
    if part.is_output and part.module.bias is not None:
        names["bias"] = 0
    for name, dimension in names.items():
        old = getattr(part.module, name)
        smaller = old.detach().index_select(dimension, index.to(old.device))
        setattr(part.module, name, torch.nn.Parameter(smaller, requires_grad=old.requires_grad))
    for size in ("out_features", "nf") if part.is_output else ("in_features", "nx"):
        if hasattr(part.module, size):
            setattr(part.module, size, len(index))  # what the module prints about itself


def describe(model: PreTrainedModel, changes: Mapping[str, int]) -> None:
    """Write new widths into the configuration and into the modules that remember them, and see that a model built from
    that configuration has exactly this one's shapes. Raises UnsupportedError if it has not.
    """
    from compressbench.models.parts import require_described

    for key, value in changes.items():
        setattr(model.config, key, value)
        for module in model.modules():
            if isinstance(module.__dict__.get(key), int):
                setattr(module, key, value)
    require_described(model, "these widths")
