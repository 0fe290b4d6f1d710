"""Are these the same answers? Logits, vectors and greedy texts of a deployed model against those of its reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from compressbench.core.errors import CellError
from compressbench.core.protocols import Batch, Session
from compressbench.records.deployment import Parity

if TYPE_CHECKING:
    import torch

_MOST_ROWS = 2048
_MOST_VALUES = 1 << 24
_NUM_TEXTS, _TOKENS_PER_TEXT = 8, 16
_VECTORS, _WRITERS = "feature-extraction", "causal-lm"


class ParityLimits(NamedTuple):
    """What may differ: the mean KL divergence in nats, the share of rows with the same largest logit, the smallest cosine
    of vectors, the share of equal texts, and the largest difference as a fraction of the largest value. Logits of the
    reference that are nearer to each other than `tie` of the row's largest magnitude count as the same largest one.
    """

    max_mean_kl: float = math.inf
    min_top1_agreement: float = 0.0
    min_cosine: float = -1.0
    min_equal_texts: float = 0.0
    max_relative_difference: float = math.inf
    tie: float = 0.0


EXACT = ParityLimits(1e-4, 0.99, 0.9999, 0.75, 0.02)
"""Of an engine that computes the same in another order, in float32."""
IN_HALF = ParityLimits(1e-2, 0.99, 0.999, 0.25, 0.1, tie=2**-5)
"""The same where numbers have 8 bits (bfloat16, activations in int8): a tie is eight roundings wide, and a text that
takes another way at one goes on differently."""
ROUNDED = ParityLimits(0.2, 0.85, 0.95)
"""Of an engine that rounds or quantizes: beyond these it is another model. What it costs is measured by the tasks."""
SAME_FILES = ParityLimits(1e-5, 0.999, 0.99999, 0.99, 1e-3)
"""Of the same files in another process."""


def limits_for(*, is_exact: bool, dtypes: Iterable[str]) -> ParityLimits:
    """For an engine that is meant to be exact or isn't; `dtypes` are those of both sides."""
    if not is_exact:
        return ROUNDED
    return EXACT if all(dtype == "float32" for dtype in dtypes) else IN_HALF


class Answers(NamedTuple):
    """`rows` (rows x classes, float32, on the host) are logits, or vectors without a head; `texts` are token ids."""

    rows: torch.Tensor
    texts: list[list[int]]


def inputs_for_parity(inputs: Sequence[Batch]) -> list[Batch]:
    """The first inputs, as many as make at most 2,048 rows."""
    found, num_rows = list[Batch](), 0
    for batch in inputs:
        num_rows += math.prod(next(iter(batch.values())).shape[:2])
        if found and num_rows > _MOST_ROWS:
            break
        found.append(batch)
    return found


def answers_of(session: Session, head: str, inputs: Sequence[Batch]) -> Answers:
    """What the session answers: at most 16 million numbers, and of a language model the first greedy texts."""
    import torch

    rows: list[torch.Tensor] = []
    for batch in inputs:
        output = session(batch)
        session.synchronize()
        rows.append(output.detach().float().cpu().reshape(-1, output.shape[-1]))
        if sum(each.numel() for each in rows) >= _MOST_VALUES:
            break
    return Answers(torch.cat(rows)[:_MOST_ROWS], list(_texts(session, inputs)) if head == _WRITERS else [])


def _texts(session: Session, inputs: Sequence[Batch]) -> Iterator[list[int]]:
    left = _NUM_TEXTS
    for batch in inputs:
        if left <= 0:
            return
        few = {name: tensor[:left] for name, tensor in batch.items()}
        written = session.generate(few, _TOKENS_PER_TEXT)
        yield from written[:, -_TOKENS_PER_TEXT:].tolist()
        left -= len(written)


def write_answers(path: Path, answers: Answers) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"rows": answers.rows.contiguous()}
    if answers.texts:
        tensors["texts"] = torch.tensor(answers.texts)
    save_file(tensors, path)


def read_answers(path: Path) -> Answers:
    from safetensors.torch import load_file

    # a clone, because the file may go while its memory is mapped
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    return Answers(tensors["rows"], tensors["texts"].tolist() if "texts" in tensors else [])


def compare(reference: Answers, found: Answers, head: str, limits: ParityLimits, name: str) -> Parity:
    """How far `found` is from `reference`, which is called `name`. Raises CellError if they differ in shape."""
    if reference.rows.shape != found.rows.shape or len(reference.texts) != len(found.texts):
        raise CellError(
            f"the answers have another shape than those of {name}",
            got=f"{tuple(found.rows.shape)} where it gives {tuple(reference.rows.shape)}",
        )
    numbers = _vector_numbers(reference, found) if head == _VECTORS else _logit_numbers(reference, found, limits.tie)
    difference = (found.rows - reference.rows).abs().max().item()
    num_equal = sum(ours == theirs for ours, theirs in zip(found.texts, reference.texts, strict=True))
    parity = Parity(
        reference=name,
        num_rows=len(reference.rows),
        max_difference=difference if math.isfinite(difference) else _LARGEST,
        num_texts=len(reference.texts),
        num_equal_texts=num_equal,
        limits={key: value for key, value in limits._asdict().items() if math.isfinite(value) and value},
        **numbers,
    )
    scale = reference.rows.abs().max().item() or 1.0
    return parity.model_copy(update={"broken": tuple(_broken(parity, limits, scale))})


# stands for a difference to something that is no number: a record holds finite ones only
_LARGEST = 1e300


def _logit_numbers(reference: Answers, found: Answers, tie: float) -> dict[str, float]:
    ours, theirs = found.rows.double().log_softmax(-1), reference.rows.double().log_softmax(-1)
    kl = (theirs.exp() * (theirs - ours)).sum(-1).mean().item()
    chosen = reference.rows.gather(-1, found.rows.argmax(-1, keepdim=True)).squeeze(-1)
    least = reference.rows.amax(-1) - tie * reference.rows.abs().amax(-1)
    same = (chosen >= least).double().mean().item()
    return {"mean_kl": max(0.0, kl) if math.isfinite(kl) else _LARGEST, "top1_agreement": same}


def _vector_numbers(reference: Answers, found: Answers) -> dict[str, float]:
    import torch

    cosine = torch.cosine_similarity(found.rows.double(), reference.rows.double()).min().item()
    return {"min_cosine": cosine if math.isfinite(cosine) else -1.0}


def _broken(parity: Parity, limits: ParityLimits, scale: float) -> Iterator[str]:
    if parity.mean_kl is not None and not parity.mean_kl <= limits.max_mean_kl:
        yield f"mean KL divergence {parity.mean_kl:.3g} nats, at most {limits.max_mean_kl:g} allowed"
    if parity.top1_agreement is not None and parity.top1_agreement < limits.min_top1_agreement:
        yield f"{parity.top1_agreement:.1%} of rows have the same largest logit, {limits.min_top1_agreement:.1%} needed"
    if parity.min_cosine is not None and parity.min_cosine < limits.min_cosine:
        yield f"smallest cosine {parity.min_cosine:.5f}, {limits.min_cosine:g} needed"
    if parity.num_equal_texts < limits.min_equal_texts * parity.num_texts:
        yield f"{parity.num_equal_texts} of {parity.num_texts} texts are the same, {limits.min_equal_texts:.0%} needed"
    if parity.max_difference > limits.max_relative_difference * scale:
        most = limits.max_relative_difference * scale
        yield f"largest difference {parity.max_difference:.3g}, at most {most:.3g} allowed"
