"""Make `embedded:arithmetic`: sums of two to five numbers, each with its steps written down before its result.

    python training/arithmetic_questions.py [--out FOLDER]

Numbers are written with their last digit first, as one adds by hand (arXiv:2307.03381): 37+58-12 is `73+85-21=`, answered
by `59-21=38.`. The first two numbers are put together and the rest is copied, until one number is left; none on the way is
below zero. No question of the test split is in the train split, nor in what `training/arithmetic_lm.py` learns from.
"""

from __future__ import annotations

import argparse
import pathlib
import random
from collections.abc import Iterator, Sequence, Set

import pyarrow
import pyarrow.parquet

OUT = pathlib.Path(__file__).resolve().parent.parent / "compressbench/data/embedded/arithmetic"
SIZES = {"train": 6000, "test": 600}
NUM_OPERANDS = (2, 3, 4, 5)
SEED = 0
Terms = tuple[int, ...]


def draw_terms(chance: random.Random, num_operands: int) -> Terms:
    """Numbers of two digits with their signs, of which no sum from the left is below zero."""
    terms = [chance.randint(10, 99)]
    while len(terms) < num_operands:
        term = chance.choice((-1, 1)) * chance.randint(10, 99)
        if sum(terms) + term >= 0:
            terms.append(term)
    return tuple(terms)


def written(terms: Sequence[int]) -> str:
    """`73+85-21` for (37, 58, -12)."""
    first, *rest = terms
    return str(first)[::-1] + "".join("+-"[term < 0] + str(abs(term))[::-1] for term in rest)


def question_of(terms: Sequence[int]) -> str:
    return f"{written(terms)}="


def solution_of(terms: Sequence[int]) -> str:
    """The steps and the result."""
    steps = [(sum(terms[:at]), *terms[at:]) for at in range(2, len(terms) + 1)]
    return "=".join(map(written, steps)) + "."


def stream(seed: int, without: Set[Terms]) -> Iterator[Terms]:
    """Questions without end, as many of each length, none of which is in `without`."""
    chance = random.Random(seed)
    while True:
        for num_operands in NUM_OPERANDS:
            terms = draw_terms(chance, num_operands)
            if terms not in without:
                yield terms


def splits() -> dict[str, list[Terms]]:
    """Different questions by split."""
    found: dict[str, list[Terms]] = {}
    taken: set[Terms] = set()
    for number, split in enumerate(("test", "train")):
        questions: dict[Terms, None] = {}
        for terms in stream(SEED + number, taken):
            questions[terms] = None
            if len(questions) == SIZES[split]:
                break
        found[split] = list(questions)
        taken |= set(questions)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for split, questions in splits().items():
        columns = {
            "question": list(map(question_of, questions)),
            "solution": list(map(solution_of, questions)),
            "result": list(map(sum, questions)),
            "num_operands": list(map(len, questions)),
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), options.out / f"{split}.parquet", compression="zstd")
        print(f"{split}: {len(questions)} questions")


if __name__ == "__main__":
    main()
