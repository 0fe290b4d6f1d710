from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from nontext_parts import png
from PIL import Image

from compressbench.core.errors import DataError, MissingDependencyError
from compressbench.data.images import decode_image, image_bytes

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)


def test_a_cell_is_bytes_or_a_struct_that_holds_them() -> None:
    data = png(GREY)
    assert image_bytes(data, "here") == data
    assert image_bytes({"bytes": data, "path": "cat.png"}, "here") == data


@pytest.mark.parametrize("cell", ["cats/1.png", {"bytes": None, "path": "cats/1.png"}, "/etc/passwd", {"bytes": b""}])
def test_a_file_that_is_only_named_is_not_opened(cell: Any) -> None:
    with pytest.raises(DataError, match="names a picture and doesn't hold it") as caught:
        image_bytes(cell, "rows.parquet, row 3")
    assert caught.value.where == "rows.parquet, row 3"


@pytest.mark.parametrize("cell", [3, 1.5, [1, 2], b""])
def test_a_cell_of_anything_else_is_no_picture(cell: Any) -> None:
    with pytest.raises(DataError, match="a picture must be bytes"):
        image_bytes(cell, "here")


def test_grey_becomes_rgb_and_colours_grey_as_the_model_asks() -> None:
    grey = np.asarray(decode_image(png(GREY), 3, "here"))
    assert np.array_equal(grey, np.repeat(GREY[:, :, None], 3, axis=2))
    assert np.array_equal(np.asarray(decode_image(png(GREY), 1, "here")), GREY)
    assert np.array_equal(np.asarray(decode_image(png(COLOUR), 3, "here")), COLOUR)
    luma = COLOUR @ [0.299, 0.587, 0.114]  # ITU-R 601
    assert np.asarray(decode_image(png(COLOUR), 1, "here")) == pytest.approx(luma, abs=1)


def test_a_transparent_picture_keeps_its_colours() -> None:
    with_alpha = np.dstack([COLOUR, np.full((3, 4), 7, np.uint8)])
    assert np.array_equal(np.asarray(decode_image(png(with_alpha), 3, "here")), COLOUR)


def test_a_picture_that_was_taken_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    found = np.asarray(decode_image(png(COLOUR, exif=exif), 3, "here"))
    assert np.array_equal(found, np.rot90(COLOUR, k=-1))


def test_a_jpeg_is_read_too() -> None:
    flat = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    assert np.asarray(decode_image(png(flat, "JPEG"), 3, "here")) == pytest.approx(flat.astype(float), abs=4)


@pytest.mark.parametrize(
    "data", [b"not a picture", png(COLOUR)[:40], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match="not a picture that can be read") as caught:
        decode_image(data, 3, "rows.parquet, sample 7")
    assert caught.value.where == "rows.parquet, sample 7"


def test_sixteen_bits_a_channel_are_refused() -> None:
    deep = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16) * 256).save(deep, "PNG")
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        decode_image(deep.getvalue(), 3, "here")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_picture_of_more_pixels_than_is_safe_is_not_decoded(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    with pytest.raises(DataError, match="more pixels than is safe"):
        decode_image(bomb, 3, "here")


def test_the_extra_is_named_where_pillow_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(GREY)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"compressbench\[vision\]"):
        decode_image(data, 3, "here")
