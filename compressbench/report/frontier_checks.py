"""What a frontier says besides its curve: isotonic regression, which assumes no form, and the law of bits and its break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compressbench.core.bits_law import FEWEST, BitsLaw, fit_bits_law, why_no_law
from compressbench.core.curve_fits import Fits, errors_above_zero
from compressbench.core.isotonic import Monotony, levels_of, monotony
from compressbench.report.catalog import Catalog
from compressbench.report.frontier_levels import Scale
from compressbench.report.frontier_rivals import Member, baseline_among

BITS = "effective_bits"


class Gap(NamedTuple):
    """Where the fitted curve lies farthest from the isotonic fit of the same rows: the row's place among the members, by
    how much the curve is above it in quality, and in errors of the row as the curve's fit takes them.
    """

    at: int
    above: float
    in_errors: float


class Checks(NamedTuple):
    """`monotony` is of the family's rows, at `places` among the members; None with fewer than two. `laws` are by method,
    of costs in bits and a metric on a log scale; `why_no_law` says why there is none, "" where none is meant.
    """

    places: tuple[int, ...]
    monotony: Monotony | None
    gap: Gap | None
    laws: Mapping[str, BitsLaw]
    why_no_law: str


def checks_of(
    catalog: Catalog, members: Sequence[Member], scale: Scale, fits: Fits | None, fitted_to: Sequence[int], *, seed: int
) -> Checks:
    """`fitted_to` are the places of the rows that `fits` went through."""
    places = tuple(at for at, member in enumerate(members) if not member.rival)
    found = monotony([members[at].point for at in places]) if len(places) > 1 else None
    laws, why = _laws(catalog, members, seed) if scale.is_log and scale.cost == BITS else ({}, "")
    return Checks(places, found, None if fits is None else _gap(members, fits, fitted_to), laws, why)


def _gap(members: Sequence[Member], fits: Fits, fitted_to: Sequence[int]) -> Gap:
    points = [members[at].point for at in fitted_to]
    levels, errors = levels_of(points), errors_above_zero([point.quality_error for point in points])
    gaps = []
    for at, point, level, error in zip(fitted_to, points, levels, errors, strict=True):
        above = fits.quality_at(point.cost) - level
        gaps.append(Gap(at, above, abs(above) / (error * fits.inflation)))
    return max(gaps, key=lambda gap: gap.in_errors)


def _laws(catalog: Catalog, members: Sequence[Member], seed: int) -> tuple[dict[str, BitsLaw], str]:
    """Of each method that quantized enough rows of the family and did nothing else to their weights."""
    base = baseline_among(members)
    if base is None:
        return {}, "no baseline has both numbers, which losses are relative to"
    rows: dict[str, list[Member]] = {}
    for each in members:
        if not each.rival and _is_quantized(catalog, each, base):
            rows.setdefault(each.contender.steps, []).append(each)
    laws = {
        method: fit_bits_law(
            [each.point.cost for each in found], [base.point.quality - each.point.quality for each in found],
            [each.point.quality_error for each in found], seed=seed,
        )
        for method, found in rows.items()
        if not why_no_law([each.point.cost for each in found]) and all(each.point.quality_error > 0 for each in found)
    }  # fmt: skip
    return laws, "" if laws else f"no method was run at {FEWEST} different numbers of bits or more"


def _is_quantized(catalog: Catalog, member: Member, base: Member) -> bool:
    """What only has zeros has the same bits whatever their number, and so never different widths enough."""
    number, of_base = (catalog.row(each.contender.at).cells["num_parameters"].value for each in (member, base))
    return number == of_base and member.point.cost < base.point.cost
