"""Rows that may be ranked together, and the refusal to rank others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compressbench.core.errors import NotComparableError
from compressbench.records.comparability import Conditions, differences
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender

_LONGEST = 60


def groups_of(contenders: Sequence[Contender]) -> dict[str, list[Contender]]:
    """By comparability key, in the order in which the keys come."""
    groups: dict[str, list[Contender]] = {}
    for contender in contenders:
        groups.setdefault(contender.comparability_key, []).append(contender)
    return groups


def one_group(catalog: Catalog, contenders: Sequence[Contender], *, force: bool = False) -> str:
    """ "" if all may be ranked together, else, with `force`, the watermark that whatever is printed must carry.

    Raises NotComparableError with the conditions that differ.
    """
    groups = groups_of(contenders)
    if len(groups) <= 1:
        return ""
    differing = differing_conditions([catalog.row(group[0].at).conditions for group in groups.values()])
    if force:
        return f"NOT COMPARABLE, forced: these rows differ in {', '.join(differing) or 'their conditions'}"
    recipes = ", ".join(dict.fromkeys(contender.recipe for contender in contenders))
    raise NotComparableError(
        f"{len(contenders)} rows fall into {len(groups)} groups that can't be ranked together",
        where=recipes,
        got="; ".join(f"{name}: {' | '.join(map(_short, values))}" for name, values in differing.items()),
        do="Choose one with --recipe or --key, or rank them all the same with --force.",
    )


def differing_conditions(conditions: Sequence[Conditions]) -> dict[str, list[str]]:
    """The conditions that are not the same everywhere, with their distinct values."""
    names: dict[str, None] = {}
    for each in conditions[1:]:
        names |= dict.fromkeys(differences(conditions[0], each))
    return {name: _distinct(conditions, name) for name in names}


def _distinct(conditions: Sequence[Mapping[str, str]], name: str) -> list[str]:
    return list(dict.fromkeys(each.get(name, "") for each in conditions))


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"
