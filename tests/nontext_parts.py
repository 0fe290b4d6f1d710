"""Pictures and sounds in Parquet files, and small models of them in folders."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from compressbench.models.handle import ModelHandle

RATE = 16_000


def write_handle(handle: ModelHandle, folder: Path) -> Path:
    """The model and what prepares its inputs, as save_pretrained writes them."""
    handle.model.save_pretrained(folder)
    handle.tokenizer.save_pretrained(folder)
    return folder


def png(pixels: npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """A picture file of pixels (height x width, or height x width x channels; uint8)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def grey_pictures(count: int, size: int = 28, seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, size, size), np.uint8))


def write_pictures(path: Path, pictures: Sequence[bytes], labels: Sequence[int], *, as_struct: bool = True) -> Path:
    cells: Any = [{"bytes": picture, "path": None} for picture in pictures] if as_struct else list(pictures)
    pq.write_table(pa.table({"image": cells, "label": list(labels)}), path)
    return path


def wav(samples: npt.NDArray[Any], rate: int = RATE, width: int = 2, num_channels: int = 1) -> bytes:
    """A WAV file of integer samples, written by the standard library."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(num_channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def tone(hertz: float, seconds: float = 0.5) -> bytes:
    times = np.arange(int(RATE * seconds)) / RATE
    return wav((np.sin(2 * np.pi * hertz * times) * 20_000).astype("<i2"))


def write_sounds(path: Path, sounds: Sequence[bytes], texts: Sequence[str]) -> Path:
    cells = [{"bytes": sound, "path": f"{at}.wav"} for at, sound in enumerate(sounds)]
    pq.write_table(pa.table({"audio": cells, "text": list(texts)}), path)
    return path
