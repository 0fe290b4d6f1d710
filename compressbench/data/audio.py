"""Sounds of a table: WAV files, decoded without any library for sound."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.errors import DataError
from compressbench.data.embedded_bytes import embedded_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_DO = "Convert it to WAV with PCM of 8 to 32 bits, for example: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav."


class Sound(NamedTuple):
    """`samples` are one channel, float32, full scale at -1 and 1; `rate` is per second."""

    samples: npt.NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


class _Format(NamedTuple):
    tag: int
    num_channels: int
    rate: int
    bits: int


def audio_bytes(value: Any, where: str) -> bytes:
    """The encoded sound in a cell of a table: bytes, or what `datasets` makes of its feature Audio."""
    return embedded_bytes(value, where, "sound", "Audio")


def decode_wav(data: bytes, where: str) -> Sound:
    """A WAV file (RIFF) with PCM of 8, 16, 24 or 32 bits, or floats of 32 or 64; channels are averaged.

    Raises DataError for other codecs, for what is cut off, and for sounds without a sample.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise DataError("only WAV files are decoded here", where=where, got=_kind(data), do=_DO)
    found, samples = None, None
    for name, body in _chunks(data, where):
        if name == b"fmt ":
            found = _format(body, where)
        elif name == b"data" and samples is None:
            samples = body
    if found is None or samples is None:
        raise DataError("a WAV file has a format and data", where=where, got="one of them is missing", do=_DO)
    values = _values(samples, found, where)
    if not len(values):
        raise DataError("the sound is empty", where=where, got="0 samples")
    return Sound(values, found.rate)


def _chunks(data: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        if len(body) < size:
            raise DataError("the WAV file is cut off", where=where, got=f"{len(body)} of {size} bytes of {name!r}")
        yield name, body
        at += 8 + size + size % 2


def _format(body: bytes, where: str) -> _Format:
    if len(body) < 16:
        raise DataError("the WAV file's format is cut off", where=where, got=f"{len(body)} of 16 bytes")
    tag, num_channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = int.from_bytes(body[24:26], "little")
    if (tag, bits) not in {*((_PCM, bits) for bits in (8, 16, 24, 32)), (_FLOAT, 32), (_FLOAT, 64)}:
        raise DataError("a codec that is not decoded here", where=where, got=f"WAV format {tag}, {bits} bits", do=_DO)
    if not num_channels or not rate:
        raise DataError("a sound has a channel and a rate", where=where, got=f"{num_channels} channels, rate {rate}")
    return _Format(tag, num_channels, rate, bits)


def _values(data: bytes, found: _Format, where: str) -> npt.NDArray[np.float32]:
    import numpy as np

    width = found.bits // 8
    raw = np.frombuffer(data[: len(data) // width * width], np.uint8)
    if found.tag == _FLOAT:
        values = raw.view(f"<f{width}").astype(np.float64)
    elif width == 1:
        values = raw.astype(np.float64) / 128 - 1  # the one width that is unsigned
    else:
        whole = np.zeros((len(raw) // width, 4), np.uint8)
        whole[:, 4 - width :] = raw.reshape(-1, width)
        values = whole.view("<i4")[:, 0] / 2.0**31
    if not np.isfinite(values).all():
        raise DataError("the sound has samples that are no numbers", where=where, got="NaN or infinity")
    frames = values[: len(values) // found.num_channels * found.num_channels].reshape(-1, found.num_channels)
    mixed: npt.NDArray[np.float32] = frames.mean(axis=1).astype(np.float32)
    return mixed


def _kind(data: bytes) -> str:
    known = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"\xff\xfb": "MP3"}
    return next((name for start, name in known.items() if data.startswith(start)), f"bytes {data[:4]!r}")
