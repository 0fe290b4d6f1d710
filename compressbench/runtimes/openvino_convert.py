"""A handle's model as a graph of OpenVINO: encoders as they are, decoders with their key-value cache as its state.

PyTorch's tracer records one call, so what a trace would freeze is handed in from outside: a decoder gets its positions
and its whole mask (batch x 1 x new x all positions), and the positions whose logits are wanted.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from compressbench.core.errors import CompressbenchError, UnsupportedError
from compressbench.models.handle import ModelHandle
from compressbench.models.quiet import quiet

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BEAM = "beam_idx"
DECODER_INPUTS = ("input_ids", "mask", "position_ids", "wanted", BEAM)


class Converted(NamedTuple):
    """`model` is an ov.Model; `cache` has (heads, size of a head) of every tensor of a decoder's state, in its order."""

    model: Any
    inputs: tuple[str, ...]
    cache: tuple[tuple[int, int], ...] = ()


def convert(handle: ModelHandle) -> Converted:
    """The graph in float32, whatever the weights are stored in. Raises UnsupportedError if it can't be made."""
    model = handle.model
    if model.dtype != torch.float32:
        model = copy.deepcopy(model).float()
    was_training = model.training
    try:
        with _traceable():
            return _decoder(model.eval()) if handle.head == "causal-lm" else _encoder(handle, model.eval())
    except CompressbenchError:
        raise
    except Exception as error:  # whatever a model's own code or the converter raises, this model can't be deployed so
        first = str(error).strip().split("\n")[0]
        raise UnsupportedError(
            f"OpenVINO can't convert {type(model).__name__}", got=f"{type(error).__name__}: {first[:200]}"
        ) from error
    finally:
        model.train(was_training)


@contextmanager
def _traceable() -> Iterator[None]:
    """The tracer warns of what it can't follow, and of its own age; parity with the model is what decides."""
    with warnings.catch_warnings(), torch.no_grad(), quiet():
        for kind in (torch.jit._trace.TracerWarning, DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield


class _Encoder(nn.Module):
    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        output = self.model(**dict(zip(self.names, tensors, strict=True)))
        return output.logits if hasattr(output, "logits") else output.last_hidden_state  # type: ignore[no-any-return]


def _encoder(handle: ModelHandle, model: Any) -> Converted:
    example = _example(handle, model)
    graph = _traced(_Encoder(model, tuple(example)), example)
    if "pixel_values" in example:  # the processor makes one size, and convolutions of known size are faster
        graph.reshape({"pixel_values": [-1, *example["pixel_values"].shape[1:]]})
    return Converted(graph, tuple(example))


def _example(handle: ModelHandle, model: Any) -> dict[str, torch.Tensor]:
    """Two inputs, the second of which is padded."""
    if handle.head == "image-classification":
        size = model.config.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return {"pixel_values": torch.zeros(2, model.config.num_channels, height, width)}
    takes = inspect.signature(model.forward).parameters
    ids = torch.ones(2, 8, dtype=torch.int64)
    mask = ids.clone()
    mask[1, 5:] = 0
    made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    given = {"input_ids", "attention_mask", *getattr(handle.tokenizer, "model_input_names", ())}
    return {name: made[name] for name in TOKEN_INPUTS if name in takes and name in given}


class _Decoder(nn.Module):
    """One pass of a decoder: the logits at the wanted positions (batch x wanted x vocabulary), then keys and values."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        mask: torch.Tensor,
        position_ids: torch.Tensor,
        wanted: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        output = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=_cache_of(past),
            use_cache=True,
            logits_to_keep=wanted,
        )
        return (output.logits, *_tensors_of(output.past_key_values))


def _decoder(model: Any) -> Converted:
    _require_plain_attention(model)
    ids = torch.ones(2, 3, dtype=torch.int64)
    first = _tensors_of(model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True).past_key_values)
    example = {
        "input_ids": ids[:, :2],
        "mask": torch.zeros(2, 1, 2, 5),
        "position_ids": torch.tensor([[3, 4], [3, 4]]),
        "wanted": torch.tensor([0, 1]),
        **{f"past.{number}": tensor.clone() for number, tensor in enumerate(first)},
    }
    graph = _traced(_Decoder(model), example)
    cache = tuple((tensor.shape[1], tensor.shape[3]) for tensor in first)
    _make_stateful(graph, cache)
    return Converted(graph, DECODER_INPUTS, cache)


def _require_plain_attention(model: Any) -> None:
    """Raise UnsupportedError where one mask for all layers, and a cache that only grows, would be wrong."""
    takes = inspect.signature(model.forward).parameters
    missing = {"position_ids", "past_key_values", "use_cache", "logits_to_keep"} - takes.keys()
    if missing:
        raise UnsupportedError(
            f"OpenVINO needs a decoder that takes {', '.join(sorted(missing))}", got=type(model).__name__
        )
    kinds = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or (getattr(model.config, "sliding_window", None) and getattr(model.config, "use_sliding_window", True)):
        raise UnsupportedError(
            "the export to OpenVINO knows full attention only", got=", ".join(sorted(kinds)) or "a sliding window"
        )


def _cache_of(past: Sequence[torch.Tensor]) -> Any:
    """A cache that holds these tensors as they are: one that is filled begins with an empty tensor of one dimension."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()
    for keys, values in zip(past[::2], past[1::2], strict=True):
        layer = DynamicLayer()
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        cache.layers.append(layer)
    return cache


def _tensors_of(cache: Any) -> list[torch.Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _traced(module: nn.Module, example: dict[str, torch.Tensor]) -> Any:
    """The graph with its inputs named as in `example` and all their sizes open."""
    import openvino as ov

    graph = ov.convert_model(module, example_input=tuple(example.values()), share_weights=False)
    for port, name in zip(graph.inputs, example, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    graph.outputs[0].get_tensor().set_names({"logits"})
    for number, port in enumerate(graph.outputs[1:]):
        port.get_tensor().set_names({f"present.{number}"})
    return graph


def _make_stateful(graph: Any, cache: Sequence[tuple[int, int]]) -> None:
    """Keys and values stay inside the engine between calls; the state of a new text has no positions.

    The row numbers go through a gather because that is how the CPU plugin recognises a cache that it can keep in place.
    """
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops
    from openvino._offline_transformations import apply_make_stateful_transformation

    rows = ops.parameter([-1], ov.Type.i32, name=BEAM)
    rows.output(0).get_tensor().set_names({BEAM})
    graph.add_parameters([rows])
    for number, (heads, size) in enumerate(cache):
        port = graph.input(f"past.{number}")
        port.get_node().set_partial_shape(ov.PartialShape([-1, heads, -1, size]))
        readers = list(port.get_target_inputs())
        gathered = ops.gather(port.get_node(), rows, ops.constant(np.int64(0)))
        for reader in readers:
            reader.replace_source_output(gathered.output(0))
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, {f"past.{number}": f"present.{number}" for number in range(len(cache))})
    batch = ops.gather(ops.shape_of(graph.input("input_ids").get_node()), ops.constant([0]), ops.constant(0))
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            _, heads, _, size = node.get_output_partial_shape(0)
            sizes = [ops.constant([number], ov.Type.i64) for number in (heads.get_length(), 0, size.get_length())]
            shape = ops.concat([batch, *sizes], axis=0)
            node.set_arguments([ops.broadcast(ops.constant(0.0, ov.Type.f32), shape)])
    graph.validate_nodes_and_infer_types()
