"""What the steps share that another tool does in an environment of its own: the job, and taking over what came back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressbench.core.calibration import CalibrationSet
from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Claim
from compressbench.methods.calibrated_step import CalibratedStep
from compressbench.methods.foreign.process import Job, Tool, ToolOutput, run_tool
from compressbench.methods.step import quantized_claim
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressbench.models.foreign_formats import ForeignCheckpoint
    from compressbench.models.parts import Choice
    from compressbench.models.quantized_weight import QuantizedWeight

    MakeLayer = Callable[[QuantizedWeight, torch.Tensor | None], nn.Module]

_DECODERS = ("ForCausalLM", "LMHeadModel")


class ForeignStep(CalibratedStep):
    """The tool gets the model as a folder of safetensors, the calibration samples as token ids without padding, and the
    names of the modules to work on. Only decoders: the tools find their way through those.
    """

    tool: ClassVar[Tool]

    timeout_s: float = Field(3600, gt=0, le=30 * 86_400, description="the tool is stopped after this time")

    def check_model(self, config: Mapping[str, Any]) -> None:
        names = [str(name) for name in config.get("architectures") or ()]
        if names and not any(name.endswith(_DECODERS) for name in names):
            raise UnsupportedError(
                f"{self.tool.name} compresses decoders, models with a causal language-model head",
                got=", ".join(names),
                do="Use gptq, rtn, wanda or sparsegpt, which take other models too.",
            )

    def tool_options(self) -> dict[str, Any]:
        """What the worker script is told, by the tool's own names."""
        raise NotImplementedError

    @contextmanager
    def run(self, handle: ModelHandle, choice: Choice, samples: CalibrationSet) -> Iterator[ToolOutput]:
        """What the tool made of the model, for as long as the context lasts. Raises as `run_tool` does."""
        rows = [
            ids[mask.bool()].tolist()
            for batch in samples.batches
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        job = Job(self.tool_options(), tuple(choice.modules), tuple(choice.left_out), rows, self.timeout_s)
        with run_tool(self.tool, handle, job) as output:
            yield output

    def checkpoint(self, handle: ModelHandle, choice: Choice) -> tuple[ForeignCheckpoint, dict[str, Any]]:
        """What the tool wrote, and what is to be noted of it. Raises also if the handle has no calibration samples."""
        from compressbench.models.foreign_formats import read_checkpoint

        samples = self.draw(handle)
        with self.run(handle, choice, samples) as output:
            versions = {f"version_of_{name}": version for name, version in sorted(output.versions.items())}
            notes: dict[str, Any] = {"calibration": samples.describe(), **output.remarks, **versions}
            return read_checkpoint(output.checkpoint), notes

    def packed(self, handle: ModelHandle, bits: int) -> ModelHandle:
        """The model with the tool's codes and scales in packed layers, and what the tool changed besides."""
        from compressbench.models.packed_linear import PackedLinear

        choice = self.choose(handle)
        found, notes = self.checkpoint(handle, choice)
        changed = take_over(handle, found)
        put_quantized(handle, choice, found, PackedLinear)
        handle = with_changes_claimed(handle, changed, self.tool.name)
        claim = quantized_claim(self.tool.name, choice, bits)
        notes["num_modules"] = len(choice.modules)
        return handle.with_model(handle.model, weights="packed", claim=claim, **notes)


def put_quantized(handle: ModelHandle, choice: Choice, found: ForeignCheckpoint, make_layer: MakeLayer) -> None:
    """Replace each chosen linear module by a layer with the tool's codes and scales; its bias stays.

    Raises CellError if the tool quantized other modules than the chosen ones, or gave shapes or scales that can't be.
    """
    from compressbench.models.parts import bias_of, matrix, replace_module

    if set(found.quantized) != set(choice.modules):
        odd = sorted(set(found.quantized) ^ set(choice.modules))
        raise CellError(
            "the tool did not quantize just the modules that it was given",
            got=", ".join(odd[:5]),
            do="Leave modules out with ignore that the tool can't handle.",
        )
    for name, module in choice.modules.items():
        quantized = found.quantized[name]
        if quantized.codes.shape != matrix(module).shape or not bool(quantized.scale.isfinite().all()):
            raise CellError(
                f"the tool wrote a matrix for {name} that doesn't fit", got=str(tuple(quantized.codes.shape))
            )
        layer = make_layer(quantized, bias_of(module))
        replace_module(handle.model, name, layer.to(handle.device).train(module.training))


def take_over(handle: ModelHandle, found: ForeignCheckpoint) -> list[str]:
    """Copy dense tensors that the tool changed by more than their rounding, and return the names of those.

    To be done while linear modules, and so their biases, are still in place. Raises CellError for names and shapes that
    the model doesn't have.
    """
    import torch

    parameters = {**dict(handle.model.named_parameters(remove_duplicate=False)), **dict(handle.model.named_buffers())}
    changed = []
    for name, tensor in found.dense.items():
        here = parameters.get(name)
        if here is None or here.shape != tensor.shape:
            raise CellError("the tool wrote a tensor that the model doesn't have", got=f"{name} {tuple(tensor.shape)}")
        tensor = tensor.to(here.device)
        if not torch.equal(here.detach().to(tensor.dtype), tensor):
            here.detach().copy_(tensor)
            changed.append(name)
    return changed


def with_changes_claimed(handle: ModelHandle, changed: list[str], step: str) -> ModelHandle:
    """The handle with a claim on the modules whose other tensors changed, such as norms that took over a scale."""
    if not changed:
        return handle
    modules = tuple(sorted({name.rpartition(".")[0] for name in changed}))
    return handle.with_model(handle.model, claim=Claim(step=f"{step}, folded in", modules=modules))
