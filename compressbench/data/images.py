"""Pictures of a table, decoded when they are needed and never all at once."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import DataError, MissingDependencyError
from compressbench.data.embedded_bytes import embedded_bytes

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is opened. Pillow knows more, and hands some of them to other programs."""

MODES: Mapping[int, str] = {1: "L", 3: "RGB"}
"""Pillow's name of 8-bit pictures with so many channels."""

_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def require_pillow() -> None:
    """Raise MissingDependencyError if Pillow isn't installed."""
    if importlib.util.find_spec("PIL") is None:
        raise MissingDependencyError("pictures need Pillow", do='Install it: pip install "compressbench[vision]".')


def image_bytes(value: Any, where: str) -> bytes:
    """The encoded picture in a cell of a table: bytes, or what `datasets` makes of its feature Image.

    Raises DataError for anything else. Files that a table only names are not opened: its checksum says nothing of them.
    """
    return embedded_bytes(value, where, "picture", "Image")


def decode_image(data: bytes, num_channels: int, where: str) -> Image.Image:
    """The first frame, upright, in grey (1 channel) or RGB (3), 8 bits a channel; grey becomes RGB by repeating it.

    Raises DataError for what is no picture, has more than 8 bits a channel or more pixels than Pillow thinks safe, and
    MissingDependencyError without Pillow.
    """
    require_pillow()
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _refuse_deep(image.mode, where)
                return ImageOps.exif_transpose(image).convert(MODES[num_channels])
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            "the picture has more pixels than is safe to decode",
            where=where,
            got=str(error),
            do="Scale it down before; a picture can be made to fill the memory.",
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(
            "not a picture that can be read", where=where, got=str(error), do=f"Give one of {', '.join(FORMATS)}."
        ) from error


def _refuse_deep(mode: str, where: str) -> None:
    if mode in _DEEP:
        raise DataError(
            "the picture has more than 8 bits a channel, and how to scale them isn't known",
            where=where,
            got=f"mode {mode}",
            do="Convert it to 8 bits.",
        )
