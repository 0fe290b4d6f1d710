"""The metadata of a model card on the Hugging Face Hub: `co2_eq_emissions` in grams, and `model-index`.

https://huggingface.co/docs/hub/model-cards-co2 and the model card specification of huggingface/hub-docs. Emissions are
those of compressing, the only training that was seen; what use emits stands in the model index, with units in the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from compressbench.core.names import one_line
from compressbench.lifecycle.statement import Number, Statement
from compressbench.records.score import Score

# the Hub's names of tasks; all others here are of language models
_TASKS = {
    "text-classification": "text-classification",
    "image-classification": "image-classification",
    "speech-recognition": "automatic-speech-recognition",
    "sentence-similarity": "sentence-similarity",
}
_OF_USE = (
    "energy_j_per_inference",
    "energy_j_per_output_token",
    "energy_j_per_correct_answer",
    "carbon_total_per_1000_inferences",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NO_GRID = "co2_eq_emissions: the grid is not known (--region or --grid-g-per-kwh), and an average is no place"


def model_card(statement: Statement, region: str = "") -> tuple[dict[str, Any], list[str]]:
    """The metadata, and why parts of it are left out. `region` is what the user called the grid."""
    found: dict[str, Any] = {}
    record = statement.subject.own.record
    left_out: list[str] = []
    if record.model is not None and _HUB_ID.fullmatch(record.model.id):
        found["base_model"] = record.model.id
    found["tags"] = ["compressbench", *dict.fromkeys(one_line(step.use) for step in record.steps)]
    emissions, why = _emissions(statement, region)
    if emissions is None:
        left_out.append(why)
    else:
        found["co2_eq_emissions"] = emissions
    results = list(_results(statement))
    if results:
        found["model-index"] = [{"name": one_line(f"{record.recipe.name}-{record.candidate}"), "results": results}]
    else:
        left_out.append("model-index: no task was scored")
    return found, left_out


def to_front_matter(card: dict[str, Any]) -> str:
    """YAML between its two lines; text of records can't end it."""
    import yaml

    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=False, width=10_000)
    return f"---\n{text}---\n"


def _emissions(statement: Statement, region: str) -> tuple[dict[str, Any] | None, str]:
    """Operational grams of compressing, or why they can't be said honestly: nothing is assumed about the place."""
    record = statement.subject.own.record
    found = statement.number("compress_carbon_operational")
    if found is None:
        return None, "co2_eq_emissions: nothing was compressed here, and what training took is not in the record"
    if found.value is None:
        return None, f"co2_eq_emissions: of compressing: {found.reason}"
    if "assumed" in statement.terms.grid.kinds:
        return None, NO_GRID
    steps = " + ".join(dict.fromkeys(step.use for step in record.steps))
    emissions = {
        "emissions": found.value,
        "source": one_line(_source(found)),
        "training_type": one_line(f"compression of a trained model ({steps})"),
        "hardware_used": one_line(statement.subject.account.hardware),
    }
    if region:
        emissions["geographical_location"] = one_line(statement.terms.grid.source.partition(",")[0] or region)
    return emissions, ""


def _source(found: Number) -> str:
    bounds = "" if found.low is None or found.high is None else f", {found.low:.3g} to {found.high:.3g} g"
    return f"compressbench: operational carbon of compressing only, {found.kind}{bounds}; {found.source}"


def _results(statement: Statement) -> Iterator[dict[str, Any]]:
    """A result per task; energy and carbon of use stand with the first."""
    for at, score in enumerate(statement.subject.own.record.scores):
        metrics = [_quality(score)] if score.value is not None else []
        metrics += [] if at else list(_of_use(statement))
        if metrics:
            yield {"task": _task(score), "dataset": _dataset(score), "metrics": metrics}


def _task(score: Score) -> dict[str, str]:
    return {
        "type": _TASKS.get(score.task, "text-generation"),
        "name": one_line(score.label or score.task),
    }


def _dataset(score: Score) -> dict[str, str]:
    name = one_line(score.data)
    return {"type": name, "name": name, "split": one_line(score.split), "revision": one_line(score.data_revision)}


def _quality(score: Score) -> dict[str, Any]:
    return {"type": one_line(score.metric), "value": score.value, "name": one_line(score.metric)}


def _of_use(statement: Statement) -> Iterator[dict[str, Any]]:
    for each in map(statement.number, _OF_USE):
        if each is not None and each.value is not None:
            yield {
                "type": each.id.replace("carbon_total", "gco2e"),
                "value": each.value,
                "name": one_line(f"{_told(each)} ({each.unit}, {each.kind})"),
                "args": {"low": each.low, "high": each.high, "boundary": statement.subject.account.facts.boundary},
            }


def _told(number: Number) -> str:
    return f"energy {number.name}" if number.id.startswith("energy") else "carbon per 1,000 inferences"
