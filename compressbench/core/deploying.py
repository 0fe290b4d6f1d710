"""What a runtime says of itself, and what a session that runs something else than PyTorch's modules says of what it runs.

As in `core.protocols`, nobody has to inherit from anything here, and `Any` stands for torch modules and tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from compressbench.core.protocols import Batch, Session
from compressbench.core.spec import Spec

HandleT_contra = TypeVar("HandleT_contra", contravariant=True)

Note = str | int | float | bool


class RuntimeFacts(Spec):
    """What a scheduler must know of a runtime with its options.

    `accepts` are the weight formats it can start from, None: whatever a step leaves. `heads` are those it can run, None:
    all. One that `needs_calibration` has a `calibration`, as a method that needs it has. `requires` are distributions (PyPI
    names), and `extra` the optional dependency that installs them. `is_exact` says that its arithmetic is meant to be the
    handle's; one that rounds or quantizes is held against wider limits. `is_remote` says that the model runs in a server of
    its own, whatever weights a recipe names.
    """

    accepts: frozenset[str] | None = None
    heads: frozenset[str] | None = None
    devices: frozenset[str] = frozenset({"cpu", "cuda"})
    requires: tuple[str, ...] = ()
    extra: str = ""
    needs_calibration: bool = False
    is_exact: bool = True
    is_remote: bool = False


@runtime_checkable
class HasFacts(Protocol):
    """A runtime that can say more than its `requires`."""

    @property
    def facts(self) -> RuntimeFacts: ...


def facts_of(runtime: Any) -> RuntimeFacts:
    """Its facts; of one that has none only what it requires is known."""
    if isinstance(runtime, HasFacts):
        return runtime.facts
    return RuntimeFacts(requires=tuple(getattr(runtime, "requires", ())))


@runtime_checkable
class RunsFiles(Protocol[HandleT_contra]):
    """A runtime that runs files: what `export` writes is what is deployed, and a fresh process can open it."""

    def export(self, handle: HandleT_contra, folder: Path) -> Mapping[str, float]:
        """Write what `open` needs into the folder, which exists. The seconds that each stage took, by its name.

        Raises UnsupportedError if the model can't be exported.
        """
        ...

    def open(self, folder: Path, device: str) -> Session:
        """A session of what `export` wrote. Raises ModelError if files are missing or broken."""
        ...


class Deployed(Spec):
    """What a session runs. `engine` has its version; `precision` is what its matrix products compute in.

    `weight_bytes` are stored bytes of the weights that every pass reads (of embedding tables only a few rows are), and
    `cache_item_bytes` those of one number of the cache of keys and values. `seconds` by stage: export_s, quantize_s,
    compile_s, open_s and the like. What isn't known is None.
    """

    engine: str
    precision: str
    num_files_bytes: int | None = None
    weight_bytes: int | None = None
    cache_item_bytes: int | None = None
    seconds: Mapping[str, float] = {}
    notes: Mapping[str, Note] = {}


class KernelUse(NamedTuple):
    """What really ran in one call: operators with the type they compute in and how often, e.g. "MatMulInteger int8": 36.

    At least one of `wanted` (parts of names) has to run. `fallbacks` are sentences: what ran slower or in another
    precision than was asked for.
    """

    counts: Mapping[str, int]
    wanted: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()


@runtime_checkable
class SaysWhatItRuns(Protocol):
    """A session that runs something else than the modules of the handle it was made from."""

    @property
    def deployed(self) -> Deployed:
        """Read when the cell is done, so that it may count what happened meanwhile (recompilations)."""
        ...

    def kernels(self, batch: Batch, output_tokens: int | None = None) -> KernelUse | None:
        """Profile one call; None where the engine can't say."""
        ...
