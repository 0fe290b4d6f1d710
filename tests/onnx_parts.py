"""Exports to ONNX Runtime for tests: made and opened, or a copy of one that was made before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from compressbench.models.handle import ModelHandle
from compressbench.runtimes.exported import export_whole
from compressbench.runtimes.onnxruntime import OnnxRuntime

TOLERANCE = 1e-4


def exported(handle: ModelHandle, folder: Path, **options: Any) -> Any:
    runtime = OnnxRuntime(**options)
    export_whole(runtime, "onnxruntime", handle, folder)
    return runtime.open(folder, "cpu")


def copy_instead_of_exporting(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The graph of an encoder is the one in `folder` from now on, because exporting takes seconds."""
    from compressbench.runtimes import onnx_export

    def copied(_handle: Any, path: Path, *_: Any) -> Any:
        shutil.copy(folder / "model.onnx", path)
        return ("input_ids", "attention_mask"), None

    monkeypatch.setattr(onnx_export, "export_graph", copied)
