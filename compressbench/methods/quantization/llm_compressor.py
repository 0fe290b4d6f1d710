"""`llm-compressor`: quantization and pruning as the llmcompressor package does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from compressbench.core.deploying import Note
from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Facts
from compressbench.methods.foreign.process import Tool
from compressbench.methods.foreign.step import ForeignStep, put_quantized, take_over, with_changes_claimed
from compressbench.methods.pruning.sparse_step import SparseStep
from compressbench.methods.step import quantized_claim
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressbench.methods.foreign.step import MakeLayer
    from compressbench.models.foreign_formats import ForeignCheckpoint
    from compressbench.models.parts import Choice
    from compressbench.models.quantized_weight import QuantizedWeight

_PRUNING = ("wanda", "sparsegpt")
_GROUP_SIZE = 128  # of W4A16
_BITS = {"W4A16": 4, "W8A16": 8, "W8A8": 8}


class LlmCompressor(ForeignStep):
    """One-shot compression by llm-compressor (vllm-project), for comparison with the methods of the same names here.

    `scheme` goes with gptq, rtn and smoothquant+gptq: W4A16 in groups of 128, W8A16 and W8A8 per output channel, all
    symmetric. W8A8 runs in this package's dynamic int8 layers afterwards, whose activations have one scale per call and
    not one per token. `sparsity` or `mask_structure` goes with wanda and sparsegpt; the zeros are counted, and missing
    ones are an error.
    """

    facts: ClassVar[Facts] = Facts(needs_calibration=True, runs_elsewhere=("llmcompressor",), paper="arXiv:2210.17323")
    tool: ClassVar[Tool] = Tool(
        name="llm-compressor",
        distribution="llmcompressor",
        module="llmcompressor",
        version="0.14.0.1",
        worker="worker_llm_compressor.py",
    )

    modifier: Literal["gptq", "rtn", "smoothquant+gptq", "wanda", "sparsegpt"] = "gptq"
    scheme: Literal["W4A16", "W8A16", "W8A8"] | None = Field(None, description="bits of weights and activations")
    smoothing_strength: float = Field(0.5, ge=0, le=1, description="of smoothquant+gptq")
    sparsity: float | None = Field(None, gt=0, lt=1, description="fraction of zeros in the pruned modules")
    mask_structure: str = Field(
        "unstructured", pattern=r"^(unstructured|[0-9]+:[0-9]+)$", description="n:m keeps n of m neighbours"
    )
    block_size: int = Field(128, ge=1, description="columns at a time of gptq and sparsegpt")
    dampening_frac: float = Field(0.01, gt=0, lt=1, description="of the Hessian's mean diagonal")

    @model_validator(mode="after")
    def _has_one_purpose(self) -> LlmCompressor:
        if self.modifier in _PRUNING:
            if self.scheme is not None:
                raise ValueError(f"{self.modifier} prunes; leave scheme out")
            _only_message(self.pruning)
        elif self.scheme is None:
            raise ValueError(f"{self.modifier} needs a scheme: {', '.join(_BITS)}")
        elif self.sparsity is not None or self.mask_structure != "unstructured":
            raise ValueError(f"{self.modifier} quantizes; leave sparsity and mask_structure out")
        return self

    def pruning(self) -> SparseStep:
        """The amount of zeros. Raises ValueError if it makes no sense."""
        return SparseStep(sparsity=self.sparsity, mask_structure=self.mask_structure)

    def weights_after(self, weights: str) -> str:
        if self.scheme is None:
            return weights
        return "int8" if self.scheme == "W8A8" else "packed"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        choice = self.choose(handle)
        self._check_modules(choice)
        found, notes = self.checkpoint(handle, choice)
        finish = self._pruned if self.scheme is None else self._quantized
        return finish(handle, choice, found, notes)

    def tool_options(self) -> dict[str, Any]:
        names = {"modifier", "scheme", "smoothing_strength", "block_size", "dampening_frac"}
        options = self.model_dump(include=names)
        if self.modifier in _PRUNING:
            pruning = self.pruning()
            # the tool's n:m prunes n of m
            kept, group = pruning.n_of_m or (0, 0)
            options.update(sparsity=pruning.fraction_of_zeros, mask_structure=f"{group - kept}:{group}")
        return {"sparsity": None, "mask_structure": None, **options}

    def _check_modules(self, choice: Choice) -> None:
        """Raise UnsupportedError for modules that the tool would refuse, or leave as they are without a word."""
        from torch import nn

        from compressbench.models.parts import matrix

        other = next((name for name, module in choice.modules.items() if not isinstance(module, nn.Linear)), None)
        if other is not None:
            raise UnsupportedError("llm-compressor leaves the transposed layers of GPT-2 as they are", got=other)
        weights = {name: matrix(module) for name, module in choice.modules.items()}
        if self.modifier in _PRUNING:
            self.pruning().check_columns(weights.values())
        elif self.scheme == "W4A16":
            odd = next((name for name, weight in weights.items() if weight.shape[1] % _GROUP_SIZE), None)
            if odd is not None:
                raise UnsupportedError(
                    f"W4A16 needs a multiple of {_GROUP_SIZE} inputs",
                    got=f"{odd} with {weights[odd].shape[1]}",
                    do="Leave that module out with ignore, or use W8A16.",
                )

    def _quantized(
        self, handle: ModelHandle, choice: Choice, found: ForeignCheckpoint, notes: dict[str, Note]
    ) -> ModelHandle:
        from compressbench.models.packed_linear import PackedLinear

        assert self.scheme is not None  # noqa: S101 -- the caller saw to it
        make, kernels = _int8_maker(handle.device) if self.scheme == "W8A8" else (PackedLinear, ())
        changed = take_over(handle, found)
        put_quantized(handle, choice, found, make)
        handle = with_changes_claimed(handle, changed, "llm-compressor")
        return handle.with_model(
            handle.model,
            weights=self.weights_after(handle.weights),
            claim=quantized_claim("llm-compressor", choice, _BITS[self.scheme], kernels=kernels),
            num_modules=len(choice.modules),
            **notes,
        )

    def _pruned(
        self, handle: ModelHandle, choice: Choice, found: ForeignCheckpoint, notes: dict[str, Note]
    ) -> ModelHandle:
        odd = sorted(set(take_over(handle, found)) - {f"{name}.weight" for name in choice.modules})
        if odd:
            raise CellError("the tool changed more than the modules it was given", got=", ".join(odd[:5]))
        handle = self.pruning().finish(handle, choice, "llm-compressor")
        _check_zeros(choice, self.pruning())
        together: dict[str, Any] = {**handle.notes, **notes}
        return handle.with_model(handle.model, **together)


def _int8_maker(device: str) -> tuple[MakeLayer, tuple[str, ...]]:
    """What makes a dynamic int8 layer of a tool's codes, and the kernel that has to run."""
    import torch

    from compressbench.methods.quantization.int8_dynamic import int8_settings
    from compressbench.models.int8_linear import Int8DynamicLinear

    engine, reduce_range, kernel = int8_settings(device, None)

    def make(quantized: QuantizedWeight, bias: torch.Tensor | None) -> nn.Module:
        codes = (quantized.codes.to(torch.int16) - 128).to(torch.int8)
        scale = quantized.scale[:, 0].float()
        # the packed form takes float32 biases only, whatever the model is in
        bias = None if bias is None else bias.float()
        return Int8DynamicLinear(codes, scale, bias, engine=engine, reduce_range=reduce_range)

    return make, (kernel,)


def _check_zeros(choice: Choice, pruning: SparseStep) -> None:
    """Raise CellError unless every chosen matrix really has its zeros, and in its pattern: this tool once did nothing
    and said nothing.
    """
    import torch

    from compressbench.models.parts import matrix

    for name, module in choice.modules.items():
        weight = matrix(module)
        if pruning.n_of_m is not None:
            kept, group = pruning.n_of_m
            is_pruned = bool(((weight.reshape(len(weight), -1, group) != 0).sum(dim=2) <= kept).all())
        else:
            # whole weights per row: the tool rounds down
            zeros = weight.shape[0] * int(weight.shape[1] * pruning.fraction_of_zeros)
            is_pruned = weight.numel() - int(torch.count_nonzero(weight)) >= zeros
        if not is_pruned:
            found = 1 - int(torch.count_nonzero(weight)) / weight.numel()
            raise CellError(
                f"llm-compressor did not prune {name}",
                got=f"a sparsity of {found:.4f} where {pruning.fraction_of_zeros:g} {pruning.mask_structure} was asked for",
            )


def _only_message(check: Any) -> None:
    """Raise what `check` finds wrong as one plain ValueError."""
    try:
        check()
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
