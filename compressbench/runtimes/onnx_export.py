"""A model as an ONNX file: exported by PyTorch's dynamo exporter with dynamic batch and length.

The older exporter is faster (5 s against 22 on a busy machine), and wrong: fed with transformers' own masks, its logits
of MiniLM were off by 3 even on its example. It has no way to write the engine's fused attention either.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from compressbench.core.errors import CompressbenchError, ModelError, UnsupportedError
from compressbench.core.files import file_sha256
from compressbench.models.export_wrappers import CacheShape, DecoderGraph, EncoderGraph, cache_shape
from compressbench.models.handle import ModelHandle
from compressbench.models.heads import HEADS
from compressbench.models.quiet import quiet
from compressbench.models.quiet_logs import errors_only
from compressbench.runtimes.onnx_attention import attend_with_fused

MODEL, FACTS = "model.onnx", "model.facts.json"
_ONE_FILE = 2**30
"""Protocol buffers end at 2 GiB; weights beyond half of that go to a file of their own."""


class GraphFacts(NamedTuple):
    """What a session must know of the files. `cache` is a decoder's; `sha256` by the name of each file."""

    inputs: tuple[str, ...]
    cache: CacheShape | None
    weight_bytes: int
    left_out: tuple[str, ...]
    sha256: Mapping[str, str]


def export_graph(
    handle: ModelHandle, path: Path, opset: int, dtype: torch.dtype = torch.float32, is_untied: bool = False
) -> tuple[tuple[str, ...], CacheShape | None]:
    """Write the handle's model with weights and floats of `dtype`; the names of its inputs, and its cache if it has one.

    `is_untied` gives a head that shares the table of its embeddings a copy, so that a quantizer finds a weight there.
    Raises UnsupportedError with the exporter's reason.
    """
    model: Any = handle.model
    if model.dtype != dtype or model.device.type != "cpu":
        model = copy.deepcopy(model).to("cpu", dtype)
    if is_untied and handle.head == "causal-lm":
        model = _untied(model)
    try:
        with quiet(), _quiet_exporter(), torch.no_grad():
            names, program = _decoder(model, opset) if handle.head == "causal-lm" else _encoder(handle, model, opset)
            num_bytes = sum(each.nbytes for each in model.parameters())
            program.save(str(path), external_data=num_bytes > _ONE_FILE)
        _without_shapes_of_weights(path)
    except CompressbenchError:
        raise
    except Exception as error:  # the exporter raises whatever the tracing of a model raises
        raise UnsupportedError(
            f"{type(model).__name__} can't be exported to ONNX", got=" ".join(str(error).split())[:300]
        ) from error
    return names, cache_shape(model.config) if handle.head == "causal-lm" else None


def _untied(model: Any) -> Any:
    """A copy whose head has weights of its own; other weights are shared with the model, since nothing changes them."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or table is None or head.weight is not table.weight:
        return model
    copied = copy.deepcopy(model, {id(each): each for each in model.parameters()})
    copied.get_output_embeddings().weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    return copied


def _without_shapes_of_weights(path: Path) -> None:
    """The exporter states them twice, and the quantizers of ONNX Runtime, which turn weights, then find a contradiction."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    weights = {each.name for each in model.graph.initializer}
    kept = [each for each in model.graph.value_info if each.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    path.write_bytes(model.SerializeToString())


def _encoder(handle: ModelHandle, model: Any, opset: int) -> tuple[tuple[str, ...], Any]:
    dynamic = torch.export.Dim.DYNAMIC
    names: tuple[str, ...]
    inputs: tuple[torch.Tensor, ...]
    shapes: tuple[dict[int, Any], ...]
    if HEADS[handle.head].reads_tokens:
        names = ("input_ids", "attention_mask")
        ids, mask = torch.full((3, 7), 4), torch.ones(3, 7, dtype=torch.long)
        mask[0, 5:] = 0
        inputs, shapes = (ids, mask), ({0: dynamic, 1: dynamic},) * 2
    else:
        names, inputs = ("pixel_values",), (_pixels(handle, model),)
        shapes = ({0: dynamic},)
    graph = EncoderGraph(model, names, attend_with_fused)
    return names, _exported(graph, inputs, (shapes,), names, ("output",), opset)


def _pixels(handle: ModelHandle, model: Any) -> torch.Tensor:
    """Pictures of the size that the processor makes."""
    size = getattr(handle.tokenizer, "crop_size", None) or getattr(handle.tokenizer, "size", None) or {}
    side = model.config.image_size if isinstance(getattr(model.config, "image_size", None), int) else 224
    given = dict(size)
    height, width = (int(given.get(name) or side) for name in ("height", "width"))
    return torch.rand(3, getattr(model.config, "num_channels", 3), height, width).to(model.dtype)


def _decoder(model: Any, opset: int) -> tuple[tuple[str, ...], Any]:
    dynamic = torch.export.Dim.DYNAMIC
    graph = DecoderGraph(model, attend_with_fused)
    shape = graph.shape
    past = [torch.zeros(2, shape.num_heads, 3, shape.head_size, dtype=model.dtype) for _ in graph.cache_names]
    names = ("input_ids", "attention_mask", "position_ids", "kept")
    inputs = (
        torch.full((2, 5), 4),
        torch.ones(2, 8, dtype=torch.long),
        torch.arange(3, 8).expand(2, 5).contiguous(),
        torch.arange(4),
        past,
    )
    both, one = {0: dynamic, 1: dynamic}, {0: dynamic}
    shapes = (both, both, both, one, [{0: dynamic, 2: dynamic} for _ in past])
    all_names = (*names, *(f"past.{each}" for each in graph.cache_names))
    return names, _exported(
        graph, inputs, shapes, all_names, ("logits", *(f"present.{each}" for each in graph.cache_names)), opset
    )


def _exported(
    graph: torch.nn.Module, inputs: Any, shapes: Any, names: Sequence[str], outputs: Sequence[str], opset: int
) -> Any:
    return torch.onnx.export(
        graph, inputs, dynamo=True, dynamic_shapes=shapes, input_names=list(names), output_names=list(outputs),
        opset_version=opset, optimize=True, verbose=False,
    )  # fmt: skip


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without its remarks on operators of torchvision, on shapes it renames, and on its own deprecated calls."""
    with errors_only(*_LOGGERS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_facts(folder: Path, facts: GraphFacts) -> None:
    (folder / FACTS).write_text(json.dumps(facts._asdict(), indent=1) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> GraphFacts:
    """Raises ModelError if they are missing, or if a file isn't the one that was written."""
    try:
        found = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        cache = None if found["cache"] is None else CacheShape(*found["cache"])
        facts = GraphFacts(
            tuple(found["inputs"]), cache, found["weight_bytes"], tuple(found["left_out"]), found["sha256"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{FACTS} can't be read", where=str(folder), got=str(error), do=_AGAIN) from error
    for name, expected in facts.sha256.items():
        if not (folder / name).is_file():
            raise ModelError("a file of the export is missing", where=str(folder), got=name, do=_AGAIN)
        if file_sha256(folder / name) != expected:
            raise ModelError("a file of the export is not as it was written", where=str(folder), got=name, do=_AGAIN)
    return facts


_LOGGERS = ("torch.onnx", "torch.export", "torch.__trace", "onnxscript", "onnx_ir")
_AGAIN = "Export the candidate again."
