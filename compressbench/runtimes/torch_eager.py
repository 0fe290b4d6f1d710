"""`torch`: PyTorch as it is, without a compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from compressbench.core.protocols import Batch
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class TorchEager(Spec):
    """Eager execution in inference mode."""

    requires: ClassVar[tuple[str, ...]] = ("torch",)

    def prepare(self, handle: ModelHandle, device: str) -> TorchSession:
        return TorchSession(handle.model.to(device).eval(), device)


class TorchSession:
    def __init__(self, model: PreTrainedModel, device: str) -> None:
        import torch

        self.device, self._model, self._torch = device, model, torch
        self._dtype = model.dtype
        self._is_cuda = device.startswith("cuda")

    def __call__(self, batch: Batch) -> torch.Tensor:
        with self._torch.inference_mode():
            return self._model(**self._on_device(batch)).logits  # type: ignore[no-any-return]

    def generate(self, batch: Batch, num_tokens: int) -> torch.Tensor:
        with self._torch.inference_mode():
            return self._model.generate(  # type: ignore[no-any-return]
                **self._on_device(batch), do_sample=False, min_new_tokens=num_tokens, max_new_tokens=num_tokens
            )

    def synchronize(self) -> None:
        if self._is_cuda:
            self._torch.cuda.synchronize(self.device)

    def close(self) -> None:
        """Let go of the model."""
        del self._model

    def _on_device(self, batch: Batch) -> dict[str, Any]:
        """The inputs where the model is; floating ones (pixels, audio features) in its type."""
        if not self._is_cuda and not any(tensor.is_floating_point() for tensor in batch.values()):
            return dict(batch)
        return {
            name: tensor.to(self.device, self._dtype if tensor.is_floating_point() else None, non_blocking=True)
            for name, tensor in batch.items()
        }
