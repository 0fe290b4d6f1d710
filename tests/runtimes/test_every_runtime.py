"""Every runtime that computes here predicts what eager PyTorch predicts, with nothing compressed: the models that ship."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from compressbench.core.deploying import facts_of
from compressbench.core.protocols import Batch
from compressbench.core.registry import missing_distributions, resolve_use, runtimes
from compressbench.measure.parity import EXACT, answers_of, compare
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec

MODELS = {
    "embedded:minilm-banking77": "sequence-classification",
    "embedded:shakespeare-lm": "causal-lm",
    "embedded:vit-synthetic-shapes": "image-classification",
}
# torch's own: inductor imports a module whose classes are made with it
OLD_TORCHSCRIPT = "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
INDUCTOR = pytest.param(
    {"use": "torch-compile"}, marks=[pytest.mark.slow, pytest.mark.filterwarnings(OLD_TORCHSCRIPT)], id="inductor"
)
RUNTIMES = [
    pytest.param({"use": "torch-compile", "backend": "aot_eager"}, id="aot_eager"),
    INDUCTOR,
    pytest.param({"use": "onnxruntime"}, id="onnxruntime"),
    pytest.param({"use": "openvino"}, id="openvino"),
]


@cache
def loaded(model: str) -> ModelHandle:
    return load_model(ModelSpec(id=model), MODELS[model], device="cpu")


def batches(handle: ModelHandle) -> list[Batch]:
    """Two sizes, the second with padding on the left where there are tokens."""
    made = torch.Generator().manual_seed(0)
    if handle.head == "image-classification":
        config = handle.model.config
        shape = (config.num_channels, config.image_size, config.image_size)
        return [{"pixel_values": torch.randn(rows, *shape, generator=made)} for rows in (1, 5)]
    found: list[Batch] = []
    for rows, length in ((1, 16), (3, 11)):
        ids = torch.randint(5, 1000, (rows, length), generator=made)
        mask = torch.ones_like(ids)
        mask[1:, :4] = 0
        found.append({"input_ids": ids, "attention_mask": mask})
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("use", RUNTIMES)
def test_it_answers_as_eager_pytorch_does(use: dict[str, Any], model: str) -> None:
    runtime = resolve_use(runtimes, use).value
    if missing := missing_distributions(facts_of(runtime).requires):
        pytest.skip(f"needs {', '.join(missing)}")
    handle = loaded(model)
    # rows that are padding have no meaning, and every engine may answer there what it likes
    inputs = batches(handle) if handle.head != "causal-lm" else batches(handle)[:1]
    session = runtime.prepare(handle.copy(handle.supplies), "cpu")
    reference = runtimes.resolve("torch")().prepare(handle, "cpu")
    found, expected = (answers_of(each, handle.head, inputs) for each in (session, reference))
    same = EXACT._replace(min_top1_agreement=1.0, min_equal_texts=1.0)
    assert compare(expected, found, handle.head, same, "eager").broken == ()
    if handle.head == "causal-lm":
        padded = batches(handle)[1]
        assert torch.equal(session.generate(padded, 12)[:, 11:], reference.generate(padded, 12)[:, 11:])
    session.close()


class _EnoughError(Exception):
    pass


@pytest.mark.parametrize("use", [pytest.param({"use": "torch"}, id="torch"), *RUNTIMES])
def test_a_generation_that_is_given_up_leaves_nothing_behind(use: dict[str, Any]) -> None:
    """Calls beside timed blocks are, when the meter has moved: the next generation must not know of it."""
    runtime = resolve_use(runtimes, use).value
    if missing := missing_distributions(facts_of(runtime).requires):
        pytest.skip(f"needs {', '.join(missing)}")
    handle = loaded("embedded:shakespeare-lm")
    session = runtime.prepare(handle.copy(handle.supplies), "cpu")
    first, second = batches(handle)
    expected = [session.generate(batch, 8) for batch in (first, second)]

    for enough in (1, 3, 8):
        left = iter(range(enough - 1))

        def on_token(left: Any = left) -> None:
            if next(left, None) is None:
                raise _EnoughError

        with pytest.raises(_EnoughError):
            session.generate(first, 8, on_token)
        session.synchronize()
        for batch, before in zip((first, second), expected, strict=True):
            assert torch.equal(session.generate(batch, 8), before)
    session.close()
