"""One evaluation by lm-evaluation-harness on a model in memory, which is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.errors import NotFiniteError
from compressbench.models.handle import ModelHandle
from compressbench.tasks.lm_eval_quiet import (
    FEWSHOT_SEED,
    as_seeded_by_the_harness,
    quiet_harness,
    weights_left_alone,
)
from compressbench.tasks.lm_eval_rows import Logged, document_id

if TYPE_CHECKING:
    import torch


class Said(NamedTuple):
    """Logged samples, aggregated values by name, and the ids of documents of which the model did not see the beginning."""

    logged: Sequence[Logged]
    values: Mapping[str, Any]
    cut: frozenset[str]


def ask_the_harness(
    handle: ModelHandle, task: Any, limit: int | None, batch_size: int, told: Callable[[float], None]
) -> Said:
    """What lm_eval.simple_evaluate gives for the task, without the bootstraps and without a look at the machine.

    `told` hears which part of the requests was done. Raises NotFiniteError if a logit is no number.
    """
    with quiet_harness(told), as_seeded_by_the_harness(), weights_left_alone(handle.model):
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        tokenizer = copy.deepcopy(handle.tokenizer)  # the harness gives it a padding token
        model = HFLM(pretrained=handle.model, tokenizer=tokenizer, batch_size=batch_size)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
        finite = _Finite()
        hook = handle.model.register_forward_hook(finite)
        try:
            found = evaluate(model, {"tasks": {task.task_name: task}}, limit=limit, bootstrap_iters=0)
        finally:
            hook.remove()
        finite.raise_if_broken()
        (logged,), (values,) = found["samples"].values(), found["results"].values()
        return Said(logged, values, frozenset(_cut(model, task.OUTPUT_TYPE, logged)))


class _Finite:
    """A hook on the model that remembers whether a logit was no number, without waiting for the device."""

    def __init__(self) -> None:
        self._is_broken: torch.Tensor | None = None

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        found = (output.logits.isnan() | output.logits.isposinf()).any()
        self._is_broken = found if self._is_broken is None else self._is_broken | found

    def raise_if_broken(self) -> None:
        if self._is_broken is not None and bool(self._is_broken):
            raise NotFiniteError("the model gave logits that are not finite", do="Try bfloat16 or a milder setting.")


def _cut(model: Any, output_type: str, logged: Sequence[Logged]) -> Iterator[str]:
    """Documents with a request that is longer than what the harness shows the model of it; rolling windows show all."""
    from lm_eval.models.utils import normalize_gen_kwargs

    if output_type == "loglikelihood_rolling":
        return
    for sample in logged:
        for arguments in sample["arguments"]:
            text = "".join(part for part in arguments if isinstance(part, str))
            room = model.max_length + 1
            if output_type == "generate_until":
                room = model.max_length - normalize_gen_kwargs(arguments[1], model.max_gen_toks)["max_gen_toks"]
            if (
                len(text.encode()) + 2 > room and len(model.tok_encode(text)) > room
            ):  # a token has a byte, or is special
                yield document_id(sample)
