"""The state of a training run in one file, so that an interrupted run goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import CellError
from compressbench.records.files import cannot_write

if TYPE_CHECKING:
    import torch


@dataclass
class TrainingState:
    """Everything that the next step depends on: tensors by name, the optimizer, the number of steps done, the losses of
    the last ten. The learning rate is a function of the step. The random state is the process's own.
    """

    trained: dict[str, torch.nn.Parameter]
    buffers: dict[str, torch.Tensor]
    kept: dict[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    device: str
    step: int = 0
    recent: list[float] = field(default_factory=list)

    def advance(self, learning_rate: float) -> None:
        """One step of the optimizer, after which there are no gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies on the CPU under the names they are stored by."""
        import torch

        found = {f"trained/{name}": each.detach() for name, each in self.trained.items()}
        found |= {f"buffer/{name}": each for name, each in self.buffers.items()}
        found |= {f"kept/{name}": each for name, each in self.kept.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{index}/{name}": each for name, each in moments.items()}
        found["random/cpu"] = torch.get_rng_state()
        if self.device.startswith("cuda"):
            found["random/cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: each.to("cpu", copy=True).contiguous() for name, each in found.items()}

    def load(self, tensors: dict[str, torch.Tensor], step: int, recent: list[float]) -> None:
        """The inverse of `tensors`, in place."""
        import torch

        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(tensors[f"trained/{name}"])
            for name, buffer in self.buffers.items():
                buffer.copy_(tensors[f"buffer/{name}"])
        self.kept.update(_under("kept/", tensors))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _under("optimizer/", tensors).items():
            index, _, key = name.partition("/")
            moments.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(tensors["random/cpu"])
        if self.device.startswith("cuda"):
            torch.cuda.set_rng_state(tensors["random/cuda"], self.device)
        self.step, self.recent = step, recent


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}


class Checkpoint:
    """The file in `folder`, written every `every` steps; with None for either, nothing is written or read.

    `key` says what has to be the same for a run to go on from the file. Safetensors with JSON beside it: reading it runs
    no code.
    """

    def __init__(self, folder: Path | None, every: int | None, key: str) -> None:
        self._path = None if folder is None or every is None else folder / "training.safetensors"
        self._every, self._key = every or 1, key

    def save_when_due(self, state: TrainingState) -> None:
        """Raises OutputError if the file can't be written; the one before stays then."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if self._path is None or state.step % self._every:
            return
        about = {"key": self._key, "step": state.step, "recent": state.recent}
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            save_file(state.tensors(), part, {"about": json.dumps(about)})
            _flush(part)
            part.replace(self._path)
        except SafetensorError as error:  # how safetensors tells of a full disk
            raise cannot_write(self._path, OSError(str(error))) from error
        except OSError as error:
            raise cannot_write(self._path, error) from error
        finally:
            part.unlink(missing_ok=True)

    def restore(self, state: TrainingState) -> int | None:
        """Put `state` where the file left it, and say at which step that is; None if there is no file with this key.

        Raises CellError if the file can't be read.
        """
        from safetensors import SafetensorError, safe_open

        if self._path is None or not self._path.exists():
            return None
        try:
            with safe_open(self._path, "pt") as stored:
                about: dict[str, Any] = json.loads((stored.metadata() or {}).get("about", "{}"))
                if about.get("key") != self._key:
                    return None
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 -- it is no mapping
        except (OSError, SafetensorError, ValueError) as error:
            raise CellError(
                "the checkpoint can't be read", where=str(self._path), got=str(error), do="Delete it to start anew."
            ) from error
        state.load(tensors, about["step"], about["recent"])
        return state.step

    def delete(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Onto the disk, so that a power cut after the rename can't leave an empty file."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
