"""Keeping a candidate, and proving that what was kept is that candidate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import CellError
from compressbench.core.protocols import Batch, Runtime, Session
from compressbench.measure.deployed import digest
from compressbench.records.record import Artefact

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle

FOLDER = "artefacts"


def keep(handle: ModelHandle, store_folder: Path, stem: str, about: Mapping[str, Any]) -> Path:
    """Save a candidate under `store_folder`/artefacts/`stem`; the folder."""
    from compressbench.models.artefact import save_artefact

    folder = store_folder / FOLDER / stem
    save_artefact(handle, folder, about)
    return folder


def prove(handle: ModelHandle, folder: Path, runtime: Runtime[ModelHandle], session: Session, batch: Batch) -> Artefact:
    """Load what was kept, run both on `batch`, and say how far they are apart. Raises CellError if they differ in shape."""
    from compressbench.models.load import load_model
    from compressbench.recipe.schema import ModelSpec

    again = load_model(ModelSpec(id=str(folder)), handle.head, device=handle.device)
    other = runtime.prepare(again, handle.device)
    expected, found = session(batch).float(), other(batch).float()
    other.close()
    if found.shape != expected.shape:
        raise CellError(
            "what was saved gives logits of another shape when it is loaded again",
            where=str(folder),
            got=f"{tuple(found.shape)} where the candidate gives {tuple(expected.shape)}",
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Artefact(
        folder=f"{FOLDER}/{folder.name}",
        num_bytes=sum(path.stat().st_size for path in files),
        sha256=digest(folder),
        max_difference=float((found - expected).abs().max()),
    )
