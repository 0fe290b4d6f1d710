"""Runtimes that run files: the folder of an export, its manifest, and a session that is opened from it.

The folder holds what the engine needs, what turns samples into inputs, and a manifest with the head, the special tokens
and the runtime's options, so that a fresh process can open it without the recipe.
"""

from __future__ import annotations

import json
import tempfile
import time
import weakref
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from compressbench.core.deploying import RunsFiles
from compressbench.core.errors import ModelError
from compressbench.core.protocols import Session
from compressbench.models.handle import ModelHandle
from compressbench.models.own_decoding import Special, special_tokens

MANIFEST = "compressbench-export.json"
_FORMAT = 1


class Manifest(NamedTuple):
    """`runtime` is the use in a recipe (its name and all its options), `seconds` what the export took by stage."""

    head: str
    runtime: Mapping[str, Any]
    special: Special
    seconds: Mapping[str, float]


def prepare_from_files(runtime: RunsFiles[ModelHandle], name: str, handle: ModelHandle, device: str) -> Session:
    """Export into a folder that lives as long as the session, and open it. `name` is the runtime's in the registry."""
    owned = tempfile.TemporaryDirectory(prefix="compressbench-export-", ignore_cleanup_errors=True)
    try:
        export_whole(runtime, name, handle, Path(owned.name))
        session = runtime.open(Path(owned.name), device)
    except BaseException:
        owned.cleanup()
        raise
    weakref.finalize(session, owned.cleanup)  # left to itself, the folder warns when it goes
    session.owned_folder = owned  # type: ignore[attr-defined]
    return session


def export_whole(runtime: RunsFiles[ModelHandle], name: str, handle: ModelHandle, folder: Path) -> None:
    """The engine's files, the tokenizer (or what else prepares inputs) and the manifest into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    seconds = dict(runtime.export(handle, folder))
    seconds.setdefault("export_s", time.perf_counter() - begun - sum(seconds.values()))
    handle.tokenizer.save_pretrained(folder)
    options = {"use": name, **runtime.model_dump(mode="json")}  # type: ignore[attr-defined]
    manifest = Manifest(handle.head, options, special_tokens(handle.model, handle.tokenizer), seconds)
    text = json.dumps(
        {
            "format": _FORMAT,
            **manifest._asdict(),
            "special": manifest.special._asdict(),
            "versions": {each: version(each) for each in ("compressbench", "torch", "transformers")},
        },
        indent=1,
    )
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Raises ModelError if it is missing or can't be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise ModelError(
                f"this version reads exports of format {_FORMAT}",
                where=str(folder),
                got=f"format {found['format']!r}",
                do="Upgrade compressbench.",
            )
        special = Special(tuple(found["special"]["end"]), int(found["special"]["padding"]))
        return Manifest(str(found["head"]), found["runtime"], special, found["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{MANIFEST} can't be read", where=str(folder), got=str(error), do="Export the candidate again."
        ) from error


def open_processor(folder: Path) -> Any:
    """What turns samples into inputs, as `export_whole` kept it."""
    from compressbench.models.heads import load_processor

    return load_processor(read_manifest(folder).head, str(folder), local_files_only=True)


def files_bytes(folder: Path, suffixes: tuple[str, ...]) -> int:
    """Bytes of the engine's own files: those whose names end so."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name.endswith(suffixes))
