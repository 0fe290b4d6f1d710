"""Rows that may be ranked together, and the refusal to rank others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compressbench.core.errors import NotComparableError
from compressbench.core.names import listed, number_of, one_line
from compressbench.records.comparability import Conditions, differences
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender

_LONGEST = 80
_MOST_CHOICES = 30
_MOST_WITH_VALUES = 3
_CONTEXT = 12


def groups_of(contenders: Sequence[Contender]) -> dict[str, list[Contender]]:
    """By comparability key, in the order in which the keys come."""
    groups: dict[str, list[Contender]] = {}
    for contender in contenders:
        groups.setdefault(contender.comparability_key, []).append(contender)
    return groups


def models_of(contenders: Sequence[Contender]) -> dict[str, list[Contender]]:
    """By the baseline that they were compared with, in the order in which those come. What can't be ranked makes none."""
    of_run = {
        (each.run_id, each.recipe): each.baseline_id for each in contenders if each.is_baseline and not each.faults
    }
    models: dict[str, list[Contender]] = {}
    for each in contenders:
        models.setdefault(of_run.get((each.run_id, each.recipe), each.baseline_id), []).append(each)
    return {key: found for key, found in models.items() if any(not each.faults for each in found)}


def one_model(contenders: Sequence[Contender], *, force: bool = False) -> str:
    """The same where nothing is asked of the quality itself: margins are against each row's own baseline, and by them the
    smallest model would win however bad it is.
    """
    models = models_of(contenders)
    if len(models) <= 1:
        return ""
    if force:
        return (
            f"NOT COMPARABLE, forced: these rows are of {len(models)} models, each within a margin of its own baseline"
        )
    recipes = list(dict.fromkeys(each.recipe for each in contenders))
    metric = next((name for each in contenders for name in each.metrics), "accuracy").partition("@")[0]
    raise NotComparableError(
        f"{len(contenders)} rows are of {len(models)} models, and nothing is asked of their quality itself",
        where=one_line(listed(recipes)),
        do=one_line(
            f"Ask for it, with --goal {metric}:threshold=LIMIT, or choose with "
            f"--recipe {' or --recipe '.join(recipes[:4])}. --force ranks them all the same."
        ),
    )


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
    recipes = listed(list(dict.fromkeys(contender.recipe for contender in contenders)))
    values = "; ".join(f"{name}: {' | '.join(shown_apart(values))}" for name, values in differing.items())
    many = f"{', '.join(differing)}, each of several values"
    raise NotComparableError(
        f"{len(contenders)} rows fall into {len(groups)} groups that can't be ranked together",
        where=one_line(recipes),
        got=values if len(groups) <= _MOST_WITH_VALUES else many,
        do=do or f"Choose one, or rank them all the same with --force:\n{_choices(catalog, groups)}",
    )


def _choices(catalog: Catalog, groups: Mapping[str, Sequence[Contender]]) -> str:
    """The options that pick one group, the newest first, one a line."""
    # one whole row a group: of a large folder each is read from its index
    last = {key: max(group, key=lambda each: (each.run_id, each.at)) for key, group in groups.items()}
    newest = {key: catalog.row(each.at).created_utc[:10] for key, each in last.items()}
    keys = sorted(groups, key=lambda key: newest[key], reverse=True)
    said = [f"  --key {key}  {_named(groups[key])}, {newest[key]}" for key in keys[:_MOST_CHOICES]]
    left = len(groups) - len(said)
    return "\n".join([*map(one_line, said), *([f"  or one of {number_of(left, 'other key')}"] if left else [])])


def _named(group: Sequence[Contender]) -> str:
    return f"{listed(list(dict.fromkeys(each.recipe for each in group)))}: {number_of(len(group), 'row')}"


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
