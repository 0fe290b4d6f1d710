"""Rows that may be ranked together, and the refusal to rank others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compressbench.core.errors import NotComparableError
from compressbench.core.names import one_line
from compressbench.records.comparability import Conditions, differences
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender

_LONGEST = 80
_MOST_CHOICES = 4
_CONTEXT = 12


def groups_of(contenders: Sequence[Contender]) -> dict[str, list[Contender]]:
    """By comparability key, in the order in which the keys come."""
    groups: dict[str, list[Contender]] = {}
    for contender in contenders:
        groups.setdefault(contender.comparability_key, []).append(contender)
    return groups


def one_group(
    catalog: Catalog,
    contenders: Sequence[Contender],
    *,
    force: bool = False,
    do: str = "",
) -> str:
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
        where=one_line(recipes),
        got="; ".join(f"{name}: {' | '.join(shown_apart(values))}" for name, values in differing.items()),
        do=do or f"Choose one with {_choices(catalog, groups)}; or rank them all the same with --force.",
    )


def _choices(catalog: Catalog, groups: Mapping[str, Sequence[Contender]]) -> str:
    """The options that pick one group, the newest first."""
    # one whole row a group: of a large folder each is read from its index
    last = {key: max(group, key=lambda each: (each.run_id, each.at)) for key, group in groups.items()}
    newest = {key: catalog.row(each.at).created_utc[:10] for key, each in last.items()}
    keys = sorted(groups, key=lambda key: newest[key], reverse=True)
    said = [
        one_line(f"--key {key} ({groups[key][0].recipe}, {len(groups[key])} rows, {newest[key]})")
        for key in keys[:_MOST_CHOICES]
    ]
    left = len(groups) - len(said)
    return " or ".join([*said, *([f"one of {left} other keys"] if left else [])])


def differing_conditions(conditions: Sequence[Conditions]) -> dict[str, list[str]]:
    """The conditions that are not the same everywhere, with their distinct values."""
    names: dict[str, None] = {}
    for each in conditions[1:]:
        names |= dict.fromkeys(differences(conditions[0], each))
    return {name: _distinct(conditions, name) for name in names}


def _distinct(conditions: Sequence[Mapping[str, str]], name: str) -> list[str]:
    return list(dict.fromkeys(each.get(name, "") for each in conditions))


def shown_apart(values: Sequence[str], longest: int = _LONGEST) -> list[str]:
    """Distinct texts on one line each, without the beginning and end that long ones share, so that they stay distinct."""
    texts = [one_line(value) or "nothing" for value in values]
    begin, end = _shared(texts), _shared([text[::-1] for text in texts])
    # what is shared from both sides may overlap, as in "aa" and "aaa"
    end = end if all(len(text) > begin + end for text in texts) else 0
    cut = [f"{'…' if begin else ''}{text[begin : len(text) - end]}{'…' if end else ''}" for text in texts]
    short = [text if len(text) <= longest else f"{text[: longest - 1]}…" for text in cut]
    return short if len(set(short)) == len(set(texts)) else texts


def _shared(texts: Sequence[str]) -> int:
    """How many signs all begin with, less some for context, up to the end of a word; 0 where that isn't worth a cut."""
    shared = next(
        (at for at, signs in enumerate(zip(*texts, strict=False)) if len(set(signs)) > 1), min(map(len, texts))
    )
    shared -= _CONTEXT
    return max(0, texts[0].rfind(" ", 0, shared) + 1) if shared > _CONTEXT else 0
