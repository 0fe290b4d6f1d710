from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from nontext_parts import wav

from compressbench.core.errors import DataError
from compressbench.data.audio import audio_bytes, decode_wav

WAVE = np.sin(np.arange(50) / 5) * 0.9


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def layout(tag: int, bits: int, num_channels: int = 1, rate: int = 8000, more: bytes = b"") -> bytes:
    size = num_channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, num_channels, rate, rate * size, size, bits) + more)


def packed(width: int) -> npt.NDArray[Any]:
    """The wave as integers of `width` bytes, little-endian; of one byte unsigned."""
    if width == 1:
        return np.round(WAVE * 127 + 128).astype(np.uint8)
    whole: npt.NDArray[Any] = np.round(WAVE * (2 ** (8 * width - 1) - 1)).astype("<i4").view(np.uint8)
    return whole.reshape(-1, 4)[:, :width].copy()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integers_of_every_width_are_the_wave_to_within_a_step(width: int) -> None:
    found = decode_wav(wav(packed(width), rate=16_000, width=width), "here")
    assert found.rate == 16_000
    assert found.samples.dtype == np.float32
    assert found.samples == pytest.approx(WAVE, abs=1.6 * 2.0 ** -(8 * width - 1) + 1e-6)


@pytest.mark.parametrize(("bits", "dtype"), [(32, "<f4"), (64, "<f8")])
def test_floats_are_taken_as_they_are(bits: int, dtype: str) -> None:
    found = decode_wav(riff(layout(3, bits), chunk(b"data", WAVE.astype(dtype).tobytes())), "here")
    assert np.array_equal(found.samples, WAVE.astype(np.float32))
    assert (found.rate, found.seconds) == (8000, 50 / 8000)


def test_the_long_form_of_a_header_says_further_down_what_is_inside() -> None:
    more = struct.pack("<HHI", 22, 16, 4) + struct.pack("<H", 1) + bytes(14)
    data = riff(layout(0xFFFE, 16, more=more), chunk(b"data", packed(2).tobytes()))
    assert decode_wav(data, "here").samples == pytest.approx(WAVE, abs=1e-4)


def test_channels_are_averaged() -> None:
    both = np.stack([np.full(5, 8000), np.full(5, -4000)], axis=1).astype("<i2")
    assert decode_wav(wav(both, num_channels=2), "here").samples == pytest.approx(np.full(5, 2000 / 32768))


def test_chunks_of_other_kinds_are_stepped_over() -> None:
    data = riff(chunk(b"LIST", b"odd"), layout(1, 16), chunk(b"data", packed(2).tobytes()), chunk(b"id3 ", b"x"))
    assert len(decode_wav(data, "here").samples) == 50


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"fLaC" + bytes(40), r"only WAV.*FLAC"),
        (b"OggS" + bytes(40), r"only WAV.*Ogg"),
        (b"ID3\x04" + bytes(40), r"only WAV.*MP3"),
        (b"", "only WAV"),
        (riff(layout(1, 12), chunk(b"data", bytes(8))), "codec that is not decoded here.*format 1, 12 bits"),
        (riff(layout(7, 8), chunk(b"data", bytes(8))), "codec that is not decoded here.*format 7, 8 bits"),
        (riff(layout(1, 16)), "one of them is missing"),
        (riff(chunk(b"data", bytes(8))), "one of them is missing"),
        (riff(layout(1, 16), chunk(b"data", b"")), "the sound is empty"),
        (riff(layout(1, 16, num_channels=0), chunk(b"data", bytes(8))), "0 channels"),
        (riff(layout(1, 16, rate=0), chunk(b"data", bytes(8))), "rate 0"),
        (riff(chunk(b"fmt ", bytes(4)), chunk(b"data", bytes(8))), "format is cut off"),
        (riff(layout(3, 32), chunk(b"data", np.array([np.nan], "<f4").tobytes())), "no numbers"),
        (wav(packed(2))[:-20], "cut off"),
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        decode_wav(data, "rows.parquet, sample 3")
    assert caught.value.where == "rows.parquet, sample 3"


def test_what_to_do_about_another_codec_is_said() -> None:
    with pytest.raises(DataError, match="ffmpeg"):
        decode_wav(b"fLaC" + bytes(40), "here")


def test_a_sound_that_is_only_named_is_not_opened() -> None:
    assert audio_bytes({"bytes": b"RIFF", "path": None}, "here") == b"RIFF"
    with pytest.raises(DataError, match="names a sound and doesn't hold it"):
        audio_bytes({"bytes": None, "path": "a.wav"}, "here")
