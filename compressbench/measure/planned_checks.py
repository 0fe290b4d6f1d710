"""What a recipe asks of steps and runtimes, checked before anything is loaded."""

from __future__ import annotations

from compressbench.core import registry
from compressbench.core.deploying import facts_of
from compressbench.core.errors import UnsupportedError
from compressbench.core.registry import Resolved
from compressbench.models.heads import Head
from compressbench.recipe.schema import Recipe
from compressbench.tasks.calibration import check_calibration


def check_data(step: Resolved, head: Head, task: str) -> None:
    """Raise UnsupportedError if the step would learn or calibrate from samples as the task doesn't have them."""
    facts = step.value.facts
    if facts.needs_training_data and not head.is_trained_on:
        raise UnsupportedError(f"'{step.name}' trains, and '{task}' has no loss to train on", do="Leave the step out.")
    if facts.needs_calibration and not head.reads_tokens:
        raise UnsupportedError(
            f"'{step.name}' calibrates on rows of tokens, and the samples of '{task}' are none",
            do="Leave the step out.",
        )


def check_runtime(runtime: Resolved, weights: str, steps: tuple[Resolved, ...], tasks: tuple[Resolved, ...]) -> None:
    """Raise UnsupportedError if the runtime can't run what the steps leave, or a model with this head; DataError if what
    it calibrates on can't be drawn.
    """
    facts = facts_of(runtime.value)
    if facts.is_remote and steps:
        raise UnsupportedError(
            f"a server of the runtime '{runtime.name}' runs its own weights",
            got=f"{', '.join(step.name for step in steps)} before it",
            do="Leave compress out, and say in the runtime's `weights` what the server runs.",
        )
    if facts.accepts is not None and weights not in facts.accepts:
        raise UnsupportedError(
            f"the runtime '{runtime.name}' runs {', '.join(sorted(facts.accepts))} weights",
            got=f"{weights} weights after the last step",
            do="Leave the packing step out and let the runtime quantize, or use runtime: torch.",
        )
    if facts.heads is not None and tasks and tasks[0].value.head not in facts.heads:
        raise UnsupportedError(
            f"the runtime '{runtime.name}' runs models for {', '.join(sorted(facts.heads))}",
            got=f"{tasks[0].value.head}, which '{tasks[0].name}' needs",
            do="Use runtime: torch.",
        )
    if tasks and facts.needs_calibration:
        check_calibration(tasks[0].value, runtime.value.calibration)


def why_unsupported(recipe: Recipe, steps: tuple[Resolved, ...], runtime: Resolved) -> str:
    """Why the steps or the runtime can't be had on the recipe's device with what is installed, or ""."""
    needs = [(step.name, step.value.facts) for step in steps]
    for name, facts in [*needs, (runtime.name, facts_of(runtime.value))]:
        if recipe.device != "auto" and recipe.device not in facts.devices:
            return f"'{name}' needs {' or '.join(sorted(facts.devices))} and the recipe says {recipe.device}"
        missing = registry.missing_distributions(facts.requires)
        if missing:
            extra = getattr(facts, "extra", "")
            what = f'"compressbench[{extra}]"' if extra else " ".join(missing)
            return f"'{name}' needs {', '.join(missing)}: pip install {what}"
    return ""
