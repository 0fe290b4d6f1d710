"""The answer of a group: what `recommend` says of its rows where nothing else is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.errors import MissingMeasurementError
from compressbench.report.answer import answer_of as recommended
from compressbench.report.catalog import Catalog
from compressbench.report.cost_words import names_for
from compressbench.report.figures import Contender
from compressbench.report.policy import Policy, names_needed
from compressbench.report.recommend import recommend
from compressbench.report.words import title

LABELS = {"DEPLOY": "What to deploy", "KEEP": "Keep the baseline", "NONE QUALIFIES": "No candidate qualifies"}
_POLICY = Policy()
NEEDED = tuple(names_for(names_needed(_POLICY)))


class GroupAnswer(NamedTuple):
    """`verdict` is DEPLOY, KEEP or NONE QUALIFIES; `at` the row to deploy; `sentence` why, without naming it."""

    verdict: str
    at: int | None
    sentence: str
    rule: str


def answer_of(catalog: Catalog, contenders: Sequence[Contender]) -> GroupAnswer:
    """`contenders` have the figures of NEEDED."""
    if all(each.is_baseline for each in contenders):
        return GroupAnswer("NONE QUALIFIES", None, "No candidate was measured: there is only the baseline.", "")
    try:
        found = recommend(catalog, contenders, _POLICY)
    except MissingMeasurementError as error:
        return GroupAnswer("NONE QUALIFIES", None, str(error), "")
    said = recommended(found, catalog)
    notes = [f"{note.name.capitalize()}: {' '.join(note.reasons)}" for note in said.notes if note.name in _TOLD]
    sentence = ". ".join([*(said.because), *notes]).replace("..", ".")
    rule = f"The best {title(found.objective)} among those that keep every declared margin of quality"
    at = None if found.deploy is None else found.deploy.contender.at
    return GroupAnswer(said.verdict, at, f"{sentence.rstrip('.')}.", rule)


_TOLD = ("TIED", "MIND")
