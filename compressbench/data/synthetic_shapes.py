"""Made-up pictures of eight shapes, for vision models that can't be given real ones: any place, size, grey and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

VERSION, SEED = 1, 20201022
SHAPES = ("disc", "ring", "square", "frame", "triangle", "plus", "cross", "stripes")
SIZE, _LEVELS, _NOISE = 16, 16, 0.16
_SPLITS = {"train": 1, "test": 2}


def generate(split: str, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The first `count` pictures (count x 16 x 16, grey) of `train` or `test` and their labels, places in SHAPES."""
    import numpy as np

    draws = np.random.default_rng([SEED, VERSION, _SPLITS[split]]).random((count, 6 + SIZE * SIZE))
    labels = (draws[:, 0] * len(SHAPES)).astype(np.int64)
    pictures = np.stack([_picture(SHAPES[label], row[1:]) for label, row in zip(labels, draws, strict=True)])
    return pictures, labels


def _picture(shape: str, draws: Any) -> Any:
    """Uniform draws: place, size, darkness of ground and figure, and noise for every pixel."""
    import numpy as np

    across, down, size, ground, contrast = draws[:5]
    noise = draws[5:].reshape(SIZE, SIZE)
    radius = 3 + 3 * size
    x, y = (np.arange(SIZE) - (radius + side * (SIZE - 1 - 2 * radius)) for side in (across, down))
    inside = _inside(shape, x[None, :] / radius, y[:, None] / radius)
    sign = 1 if ground < 0.5 else -1  # a light figure on a dark ground, or the other way round
    grey = ground + sign * (0.25 + 0.25 * contrast) * inside + _NOISE * (noise - 0.5) * 2
    return (np.floor(np.clip(grey, 0, 1) * (_LEVELS - 1) + 0.5) * (255 // (_LEVELS - 1))).astype(np.uint8)


def _inside(shape: str, x: Any, y: Any) -> Any:
    """Which pixels belong to the figure, in a square from -1 to 1."""
    import numpy as np

    in_square = (abs(x) <= 1) & (abs(y) <= 1)
    in_disc = x**2 + y**2 <= 1
    return {
        "disc": in_disc,
        "ring": in_disc & (x**2 + y**2 >= 0.3),
        "square": in_square,
        "frame": in_square & (np.maximum(abs(x), abs(y)) >= 0.55),
        "triangle": in_square & (abs(x) <= (y + 1) / 2),
        "plus": in_square & (np.minimum(abs(x), abs(y)) <= 0.25),
        "cross": in_square & (np.minimum(abs(x - y), abs(x + y)) <= 0.4),
        "stripes": in_square & ((np.floor((y + 1) * 2.5).astype(int) % 2) == 0),
    }[shape]
