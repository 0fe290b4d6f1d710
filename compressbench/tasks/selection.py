"""One answer of several samples: the commonest one, or the one whose text the model itself finds likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from compressbench.core.protocols import Session, Written
from compressbench.core.selection import MOST_EXACT, best_of_accuracy, majority_accuracy, voted
from compressbench.tasks.answer_filters import INVALID, relevant
from compressbench.tasks.log_likelihood import Batching, Pair, likelihoods
from compressbench.tasks.pass_at_k import pass_at_k

Select = Literal["none", "majority", "best-of-n"]


class Scored(NamedTuple):
    """Mean log-probability per token (nats) of each of a question's texts; tokens that were read for it."""

    scores: list[float]
    num_tokens: int


class Sampled(NamedTuple):
    """A question's samples: what of each answer is compared ("" where none was found), whether it is right, its score."""

    answers: Sequence[str]
    is_right: Sequence[bool]
    scores: Sequence[float] = ()


def vote_of(answer: str, ignored: Sequence[str], ignore_case: bool) -> str:
    """What of an answer is compared; "" where none was found, which has no vote."""
    return "" if answer == INVALID else relevant(answer, ignored, ignore_case)


def chosen(select: Select, sampled: Sampled) -> int:
    """The number of the sample whose answer is given: of equally common or likely ones the first."""
    if select == "best-of-n":
        return max(range(len(sampled.scores)), key=lambda at: sampled.scores[at])
    return 0 if select == "none" else sampled.answers.index(voted(sampled.answers, blank=""))


def budgets(num_samples: int) -> list[int]:
    """The numbers of samples of which a selection's accuracy is recorded: all up to 32, then powers of two, and all."""
    few = range(1, min(num_samples, MOST_EXACT) + 1)
    many = [2**power for power in range(6, num_samples.bit_length()) if 2**power < num_samples]
    return sorted({*few, *many, num_samples})


def expected(select: Select, sampled: Sampled) -> dict[str, float]:
    """Of k samples, for several k: whether one is right (pass@k, k a power of two), and whether the selected one is."""
    ks = budgets(len(sampled.answers))
    num_right = sum(sampled.is_right)
    found = {f"pass@{k}": pass_at_k(len(sampled.answers), num_right, k) for k in ks if k & (k - 1) == 0}
    if select == "best-of-n":
        accuracies = best_of_accuracy(sampled.scores, sampled.is_right, ks)
    else:
        accuracies = majority_accuracy(num_right, *_wrong(sampled), ks)
    return found | {f"{select}@{k}": accuracy for k, accuracy in zip(ks, accuracies, strict=True)}


def _wrong(sampled: Sampled) -> tuple[list[int], int]:
    """How often each wrong answer is there, and how many samples have none."""
    votes: dict[str, int] = {}
    for answer, right in zip(sampled.answers, sampled.is_right, strict=True):
        if not right:
            votes[answer] = votes.get(answer, 0) + 1
    num_blank = votes.pop("", 0)
    return list(votes.values()), num_blank


def score_texts(
    session: Session, written: dict[tuple[int, ...], list[Written]], token_budget: int
) -> dict[tuple[int, ...], Scored]:
    """By prompt, the model's own score of each text; texts of a prompt that are the same are read once."""
    texts = {prompt: list(dict.fromkeys(tuple(each.tokens) for each in some)) for prompt, some in written.items()}
    pairs = [[Pair(list(prompt), list(text)) for text in some] for prompt, some in texts.items()]
    found = likelihoods(session, pairs, Batching(256, token_budget), lambda done: None)
    scored = {}
    for (prompt, some), values in zip(texts.items(), found, strict=True):
        means = {text: value.log_likelihood / len(text) for text, value in zip(some, values, strict=True)}
        num_tokens = sum(len(prompt) + len(text) for text in some)
        scored[prompt] = Scored([means[tuple(each.tokens)] for each in written[prompt]], num_tokens)
    return scored
