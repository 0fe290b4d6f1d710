"""The answer of a group: what `recommend` says of its rows where nothing else is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.errors import MissingMeasurementError
from compressbench.report.answer import answer_of as recommended
from compressbench.report.catalog import Catalog
from compressbench.report.cost_words import ACCURACY, names_for
from compressbench.report.figures import Contender
from compressbench.report.groups import models_of
from compressbench.report.policy import Policy, names_needed
from compressbench.report.recommend import recommend
from compressbench.report.words import title

LABELS = {
    "DEPLOY": "What to deploy",
    "KEEP": "Keep the baseline",
    "NONE QUALIFIES": "No candidate qualifies",
    "EACH ITS OWN": "What to deploy of each model",
}
_POLICY = Policy()
NEEDED = tuple(names_for(names_needed(_POLICY)))


class GroupAnswer(NamedTuple):
    """`verdict` is one of LABELS; `at` the row to deploy; `sentence` why, without naming it."""

    verdict: str
    at: int | None
    sentence: str
    rule: str


def answer_of(catalog: Catalog, contenders: Sequence[Contender]) -> GroupAnswer:
    """`contenders` have the figures of NEEDED. Each of several models is answered for: none is chosen for being small."""
    models = models_of(contenders)
    if len(models) > 1:
        return _of_each_model(catalog, list(models.values()))
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


def _of_each_model(catalog: Catalog, models: Sequence[Sequence[Contender]]) -> GroupAnswer:
    parts: list[str] = []
    for contenders in models:
        found = answer_of(catalog, contenders)
        named = next((each.candidate for each in contenders if each.at == found.at), LABELS[found.verdict].lower())
        parts.append(f"{', '.join(dict.fromkeys(each.recipe for each in contenders))}: {named}")
    metric = next((name for contenders in models for each in contenders for name in each.metrics), ACCURACY)
    goal = f"--goal {metric.partition('@')[0]}:threshold=LIMIT"
    why = f"Which of the {len(models)} models is good enough, only a goal for its quality itself can say: {goal}"
    return GroupAnswer("EACH ITS OWN", None, f"{'; '.join(parts)}. {why}.", "")


_TOLD = ("TIED", "MIND")
