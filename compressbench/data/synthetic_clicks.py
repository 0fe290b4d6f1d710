"""Made-up clicks on made-up advertisements, whose true probabilities are known, so that a model has an oracle.

A row is an impression: eight categorical values, four counts, and whether it was clicked. Real click logs can't be shipped;
these share what makes compressing recommendation models special: tables far larger than the rest of the model, ids that
are met as Zipf's law says (a few all the time, most hardly ever), few clicks, and effects of pairs of fields.

Log-odds of a click = a constant + an effect of every categorical value + an effect of every count (of its logarithm) + for
some pairs of fields the product of two hidden vectors, as in factorization machines (Rendle 2010). The click is one draw
with that probability, so that no model can do better on average than the probability itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

VERSION, SEED = 1, 20190906
SIZES: Mapping[str, int] = {
    "user": 16_000, "item": 8_000, "advertiser": 2_000, "publisher": 500, "category": 100, "region": 50, "hour": 24,
    "device": 8,
}  # fmt: skip
"""How many different values a categorical column has."""
COUNTS = ("user_clicks", "item_clicks", "item_age_days", "session_length")
PAIRS = (("user", "item"), ("user", "category"), ("item", "publisher"), ("advertiser", "region"), ("hour", "device"))

_ZIPF_EXPONENT, _RANK = 1.05, 4
_BIAS, _SPREAD, _PAIR_SPREAD = -2.2, 0.35, 0.55
_COUNT_EFFECTS, _COUNT_SPREAD = (0.5, 0.4, -0.3, 0.2), 1.2
_SPLITS = {"train": 1, "test": 2}


class Clicks(NamedTuple):
    """`columns` by name: ids (int32), counts (int32). `label` is 1 for a click; `probability` (float64) is the true one."""

    columns: dict[str, npt.NDArray[np.int32]]
    label: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64]


class _World(NamedTuple):
    """What decides about clicks: effects by field, hidden vectors by pair, and which id has which rank in Zipf's law."""

    effects: dict[str, Any]
    vectors: dict[tuple[str, str], tuple[Any, Any]]
    order: dict[str, Any]


def generate(split: str, num_rows: int) -> Clicks:
    """The first `num_rows` impressions of `train` or `test`, the same every time; the splits share the world alone."""
    import numpy as np

    world = _world()
    columns: dict[str, Any] = {}
    for number, (field, size) in enumerate(SIZES.items()):
        ranks = np.searchsorted(_zipf(size), _stream(split, number).random(num_rows), side="right")
        columns[field] = world.order[field][np.minimum(ranks, size - 1)].astype(np.int32)
    logs = [_stream(split, 100 + at).standard_normal(num_rows) * _COUNT_SPREAD for at in range(len(COUNTS))]
    for name, log in zip(COUNTS, logs, strict=True):
        columns[name] = np.floor(np.exp(1.5 + log)).astype(np.int32)
    probability = 1 / (1 + np.exp(-_log_odds(world, columns)))
    label = (_stream(split, 200).random(num_rows) < probability).astype(np.int8)
    return Clicks(columns, label, probability)


def _log_odds(world: _World, columns: Mapping[str, Any]) -> Any:
    import numpy as np

    total = np.full(len(columns["user"]), _BIAS)
    for field in SIZES:
        total += world.effects[field][columns[field]]
    for name, effect in zip(COUNTS, _COUNT_EFFECTS, strict=True):
        total += effect * (np.log1p(columns[name]) - 1.7)
    for (left, right), (ours, theirs) in world.vectors.items():
        total += (ours[columns[left]] * theirs[columns[right]]).sum(axis=1)
    return total


def _world() -> _World:
    generator = _stream("", 0)
    effects = {field: _SPREAD * generator.standard_normal(size) for field, size in SIZES.items()}
    scale = (_PAIR_SPREAD / _RANK**0.5) ** 0.5
    vectors = {
        (left, right): tuple(scale * generator.standard_normal((SIZES[field], _RANK)) for field in (left, right))
        for left, right in PAIRS
    }
    # a random order of random numbers, because numpy promises less of its own shuffling
    order = {field: generator.random(size).argsort(kind="stable") for field, size in SIZES.items()}
    return _World(effects, vectors, order)


def _zipf(size: int) -> Any:
    """Cumulative probabilities of the ranks 1 .. size, each proportional to rank ** -1.05."""
    import numpy as np

    weights = np.arange(1, size + 1, dtype=np.float64) ** -_ZIPF_EXPONENT
    return np.cumsum(weights / weights.sum())


def _stream(split: str, number: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng([SEED, VERSION, _SPLITS.get(split, 0), number])


def log_loss_bounds(clicks: Clicks) -> tuple[float, float]:
    """The least mean log loss in nats that any model can expect on such rows, and what the true probabilities get here."""
    import numpy as np

    p = clicks.probability
    expected = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
    reached = -np.where(clicks.label == 1, np.log(p), np.log1p(-p)).mean()
    return float(expected), float(reached)
