"""What the timed calls themselves answered: kept by reference, reduced after the block, hashed, and scored.

MLPerf's power rule asks for energy and quality from one run, its TEST01 for a log of the outputs of the run that was timed.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from compressbench.core.errors import CellError, NotFiniteError
from compressbench.core.protocols import Batch
from compressbench.records.measurement import Outputs

Answer: TypeAlias = "array[int]"
"""int32: a label or token id for every output position of one input, sequence by sequence."""

UNSCORED = -100
"""Stands in targets where no right answer is known (the ignore_index of cross entropies)."""

MAX_HELD_BYTES = 64 * 2**10
"""Enough for thousands of labels. Memory that is held can't be used again by the next call, which then writes to fresh
pages: 8 MiB of them made the calls of a language model take 8 % more CPU time.
"""

_TIMES_SEEN = 2
_MAX_REPEATED = 4


class KeptAnswers:
    """The answers of one arm's timed calls to each distinct input, the first time it is met, and once more to compare.

    A call hands over a reference and nothing is computed before the block is over. The outputs of a block that are held
    are at most `max_held_bytes`; of larger ones only the block's last is taken, for which nothing has to be held. So an
    arm with large outputs ends with answers to about as many of its inputs as it has blocks: `Outputs.num_inputs` says
    how many.
    """

    def __init__(self, num_inputs: int, reduce: Callable[[Any], Answer], max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self.answers: dict[int, Answer] = {}
        self.num_compared = self.num_different = 0
        self.num_blocks_not_finite = 0
        self._reduce, self._max_held_bytes = reduce, max_held_bytes
        self._wanted = [_TIMES_SEEN] * num_inputs
        self._held: list[tuple[int, Any]] = []
        self._room = max_held_bytes

    def __call__(self, slot: int, output: Any) -> None:
        if self._wanted[slot]:
            size = output.nbytes
            if size <= self._room:
                self._room -= size
                self._wanted[slot] -= 1
                self._held.append((slot, output))

    def settle(self, last: tuple[int, Any] | None) -> None:
        """Raises NotFiniteError if an output that is kept isn't finite; of a block whose last one isn't, that it is so
        is counted: a model may break down when it has run for a while.
        """
        held, self._held, self._room = self._held, [], self._max_held_bytes
        if last is not None and not (held and held[-1][1] is last[1]):
            if self._wanted[last[0]]:
                self._wanted[last[0]] -= 1
                held.append(last)
            else:
                self.num_blocks_not_finite += not self._is_finite(last[1])
        for slot, output in held:
            self._take(slot, self._reduce(output))

    def _is_finite(self, output: Any) -> bool:
        try:
            self._reduce(output)
        except NotFiniteError:
            return False
        return True

    def repeat(self, run: Callable[[int], Any]) -> None:
        """If no input was met twice, get some of them answered once more, untimed, to compare. Call it after all blocks."""
        if not self.num_compared:
            for slot in sorted(self.answers)[:_MAX_REPEATED]:
                self._take(slot, self._reduce(run(slot)))

    def _take(self, slot: int, answer: Answer) -> None:
        if slot in self.answers:
            self.num_compared += 1
            self.num_different += answer != self.answers[slot]
        else:
            self.answers[slot] = answer

    @property
    def is_repeatable(self) -> bool | None:
        """Whether all inputs that were met twice got the same answer; None if none was."""
        return self.num_different == 0 if self.num_compared else None


def keep_answers(inputs: Sequence[Batch], output_tokens: int | None) -> KeptAnswers:
    """For calls of `measure.calls.caller` on the same inputs: labels, or ids of generated tokens."""
    if output_tokens is None:
        return KeptAnswers(len(inputs), likeliest)
    length = len(inputs[0]["input_ids"][0])
    return KeptAnswers(len(inputs), lambda output: new_tokens(output, length))


def likeliest(logits: Any) -> Answer:
    """The arg max over the last dimension. Raises NotFiniteError if the largest isn't finite: an overflow is no answer."""
    largest, index = logits.max(dim=-1)
    if not bool(largest.isfinite().all()):
        raise NotFiniteError(
            "the timed calls gave logits that are not finite", do="A method or data type overflowed; try bfloat16."
        )
    return _as_array(index)


def new_tokens(output: Any, prompt_length: int) -> Answer:
    """The ids after the prompt, of every sequence."""
    return _as_array(output[:, prompt_length:])


def _as_array(ids: Any) -> Answer:
    import torch

    return array("i", ids.to(torch.int32).flatten().tolist())


class Answers(NamedTuple):
    """A table of three int32 columns: which input, which position of its output, and what was answered there."""

    inputs: Answer
    positions: Answer
    answers: Answer


def table_of(kept: KeptAnswers) -> Answers:
    """Inputs in their order, whatever order they were first met in."""
    found = Answers(array("i"), array("i"), array("i"))
    for slot, answer in sorted(kept.answers.items()):
        found.inputs.extend([slot] * len(answer))
        found.positions.extend(range(len(answer)))
        found.answers.extend(answer)
    return found


def sha256_of(table: Answers) -> str:
    """Of the rows one after the other, each as three little-endian int32: input, position, answer."""
    rows = array("i", bytes(12 * len(table.answers)))
    for column, values in enumerate(table):
        rows[column::3] = array("i", values)
    if sys.byteorder == "big":
        rows.byteswap()
    return hashlib.sha256(rows.tobytes()).hexdigest()


def score(table: Answers, targets: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How many answers have a known right answer, and how many of those are right.

    `targets` has one for every output position of every input (Task.workload_targets), UNSCORED where none is known.
    Raises CellError if an answer has no place among them.
    """
    num_scored = num_correct = 0
    for slot, position, answer in zip(*table, strict=True):
        if slot >= len(targets) or position >= len(targets[slot]):
            raise CellError(
                "the timed calls answered what the task has no targets for",
                got=f"position {position} of input {slot}",
                do="Task.workload_targets must follow the order and shape of workload_batches.",
            )
        if targets[slot][position] != UNSCORED:
            num_scored += 1
            num_correct += targets[slot][position] == answer
    return num_scored, num_correct


def summarize(kept: KeptAnswers, targets: Sequence[Sequence[int]] | None, file: str = "") -> Outputs:
    """`file` is where the table was written. Without targets nothing is scored."""
    table = table_of(kept)
    num_scored, num_correct = (0, 0) if targets is None else score(table, targets)
    return Outputs(
        sha256=sha256_of(table),
        num_inputs=len(kept.answers),
        is_repeatable=kept.is_repeatable,
        num_scored=num_scored,
        num_correct=num_correct,
        file=file,
    )


def columns_of(table: Answers) -> Mapping[str, Answer]:
    """By the names that the columns have in a file."""
    return {"input": table.inputs, "position": table.positions, "answer": table.answers}
