"""What the timed calls answered, against the same arithmetic done by hand."""

from __future__ import annotations

import hashlib
import struct
from array import array
from typing import Any

import pytest
import torch

from compressbench.core.errors import CellError
from compressbench.core.protocols import Batch
from compressbench.measure.calls import caller
from compressbench.measure.outputs import (
    Answers,
    KeptAnswers,
    columns_of,
    keep_answers,
    likeliest,
    new_tokens,
    score,
    sha256_of,
    summarize,
    table_of,
)
from compressbench.records.measurement import Outputs
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

LOGITS = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])


def batches(count: int, rows: int = 2, length: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 19, (count, rows, length), generator=generator)
    return [{"input_ids": each, "attention_mask": torch.ones_like(each)} for each in ids]


def kept(*blocks: list[tuple[int, torch.Tensor]], num_inputs: int = 3, room: int = 1000) -> KeptAnswers:
    """Blocks of (input, logits), the last of each offered again when it ends."""
    keep = KeptAnswers(num_inputs, likeliest, room)
    for block in blocks:
        for slot, logits in block:
            keep(slot, logits)
        keep.settle(block[-1])
    return keep


def test_the_answer_of_a_forward_pass_is_the_label_of_each_sequence() -> None:
    assert likeliest(LOGITS) == array("i", [1, 0])
    assert likeliest(torch.stack([LOGITS, -LOGITS])) == array("i", [1, 0, 0, 2]), "or of each position"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_no_answer(value: float) -> None:
    broken = LOGITS.clone()
    broken[1, 2] = value
    with pytest.raises(CellError, match="the timed calls gave logits that are not finite"):
        likeliest(broken)
    with pytest.raises(CellError, match="not finite"):
        kept([(0, broken)])


def test_what_breaks_down_when_every_input_was_met_is_counted_by_its_blocks() -> None:
    """Also where the last answer of a block isn't kept; and what was kept stays."""
    broken = torch.full_like(LOGITS, float("nan"))
    good = [(slot, LOGITS) for slot in range(3)]
    keep = kept(good, good)
    assert (keep.num_compared, keep.num_blocks_not_finite) == (3, 0)
    for block in ([(0, LOGITS), (1, broken)], [(2, broken)], good, [(0, broken), (1, LOGITS)]):
        for slot, logits in block:
            keep(slot, logits)
        keep.settle(block[-1])
    assert keep.num_blocks_not_finite == 2
    assert keep.answers == dict.fromkeys(range(3), array("i", [1, 0]))


def test_a_class_that_is_ruled_out_is_no_fault() -> None:
    masked = LOGITS.clone()
    masked[:, 2] = -torch.inf
    assert likeliest(masked) == array("i", [1, 0])


def test_the_answer_of_a_generation_leaves_the_prompt_out() -> None:
    assert new_tokens(torch.tensor([[7, 7, 1, 2], [8, 8, 3, 4]]), 2) == array("i", [1, 2, 3, 4])


def test_nothing_is_computed_before_the_block_is_over() -> None:
    reduced = list[Any]()

    def reduce(output: torch.Tensor) -> array[int]:
        reduced.append(output)
        return likeliest(output)

    keep = KeptAnswers(2, reduce)
    keep(0, LOGITS)
    keep(1, LOGITS)
    assert (reduced, keep.answers) == ([], {})
    keep.settle(None)
    assert len(reduced) == 2
    assert keep.answers == {0: array("i", [1, 0]), 1: array("i", [1, 0])}


def test_every_input_is_kept_twice_and_then_no_more() -> None:
    keep = KeptAnswers(2, likeliest)
    for _ in range(5):
        for slot in range(2):
            keep(slot, LOGITS)
        keep.settle((1, LOGITS))
    assert (keep.num_compared, keep.num_different) == (2, 0)
    assert keep.is_repeatable


def test_an_input_whose_answer_changes_is_told_and_its_first_answer_stays() -> None:
    other = LOGITS.flip(0)
    keep = kept([(0, LOGITS), (1, LOGITS)], [(0, LOGITS), (1, other)], [(0, other)])
    assert (keep.num_compared, keep.num_different) == (2, 1)
    assert not keep.is_repeatable
    assert keep.answers[1] == array("i", [1, 0])


def test_what_was_never_repeated_is_not_called_repeatable() -> None:
    assert not kept([(0, LOGITS), (1, LOGITS)]).is_repeatable
    assert kept([(0, LOGITS), (1, LOGITS)], [(0, LOGITS)]).is_repeatable
    assert kept([(0, LOGITS), (0, LOGITS.clone())]).is_repeatable, "also within a block"


def test_what_was_met_once_can_be_repeated_after_the_blocks() -> None:
    asked = list[int]()

    def run(slot: int, answer: torch.Tensor = LOGITS) -> torch.Tensor:
        asked.append(slot)
        return answer

    block = [(slot, LOGITS) for slot in (8, 3, 1, 7, 5, 0)]
    keep = kept(block, num_inputs=9)
    keep.repeat(run)
    assert asked == [0, 1, 3, 5], "some, not all"
    assert keep.is_repeatable
    keep.repeat(run)
    assert len(asked) == 4, "once is enough"
    other = kept(block, num_inputs=9)
    other.repeat(lambda slot: run(slot, LOGITS.flip(0)))
    assert not other.is_repeatable
    assert other.answers == keep.answers


def test_the_last_call_of_a_block_is_not_its_own_repetition() -> None:
    keep = kept([(0, LOGITS)])
    assert (keep.num_compared, list(keep.answers)) == (0, [0])


@pytest.mark.parametrize(("room", "expected"), [(24, [0, 2]), (23, [2]), (48, [0, 1, 2]), (0, [2])])
def test_what_is_held_is_bounded_and_a_blocks_last_output_always_counts(room: int, expected: list[int]) -> None:
    assert LOGITS.nbytes == 24
    block = [(slot, LOGITS.clone()) for slot in range(3)]
    keep = KeptAnswers(3, likeliest, room)
    for slot, logits in block:
        keep(slot, logits)
    assert sum(output.nbytes for _, output in keep._held) <= room
    keep.settle(block[-1])
    assert sorted(keep.answers) == expected


def test_room_is_given_back_after_every_block() -> None:
    keep = kept([(0, LOGITS)], [(1, LOGITS)], [(2, LOGITS)], room=24)
    assert sorted(keep.answers) == [0, 1, 2]
    assert keep._held == []


def test_large_outputs_are_met_over_the_blocks() -> None:
    """The last of each block of 5 calls on 3 inputs: 1, 0, 2, then the same again to compare."""
    blocks = [[(index % 3, LOGITS.clone()) for index in range(start, start + 5)] for start in range(0, 30, 5)]
    keep = kept(*blocks, room=0)
    assert sorted(keep.answers) == [0, 1, 2]
    assert keep.num_compared == 3


def test_the_table_has_a_row_per_position_in_the_order_of_the_inputs() -> None:
    keep = kept([(2, LOGITS), (0, LOGITS.flip(0))])
    assert [list(column) for column in table_of(keep)] == [[0, 0, 2, 2], [0, 1, 0, 1], [0, 1, 1, 0]]
    assert list(columns_of(table_of(keep))) == ["input", "position", "answer"]


def test_the_hash_is_that_of_the_rows_as_little_endian_integers() -> None:
    table = Answers(array("i", [0, 0, 7]), array("i", [0, 1, 0]), array("i", [5, 70_000, -1]))
    rows = struct.pack("<9i", 0, 0, 5, 0, 1, 70_000, 7, 0, -1)
    assert sha256_of(table) == hashlib.sha256(rows).hexdigest()
    assert sha256_of(Answers(array("i"), array("i"), array("i"))) == hashlib.sha256(b"").hexdigest()


def test_the_hash_does_not_depend_on_the_order_in_which_inputs_were_met_and_on_nothing_else() -> None:
    one, other = [(0, LOGITS), (1, LOGITS.flip(0))], [(1, LOGITS.flip(0)), (0, LOGITS)]
    assert sha256_of(table_of(kept(one))) == sha256_of(table_of(kept(other)))
    different = [[(0, LOGITS), (2, LOGITS.flip(0))], [(0, LOGITS)], [(0, LOGITS.flip(0)), (1, LOGITS)]]
    assert len({sha256_of(table_of(kept(block))) for block in [one, *different]}) == 4


def test_scoring_counts_what_has_a_right_answer() -> None:
    table = table_of(kept([(0, LOGITS), (2, LOGITS)]))  # both answer 1, 0
    assert score(table, [[1, 0], [9, 9], [1, 2]]) == (4, 3)
    assert score(table, [[1, -100], [9, 9], [-100, -100]]) == (1, 1)
    assert score(table, [[0, 1], [], [2, 2]]) == (4, 0)


@pytest.mark.parametrize("targets", [[[1, 0]], [[1, 0], [1, 0], [1]], []])
def test_answers_without_a_place_among_the_targets_are_an_error(targets: list[list[int]]) -> None:
    with pytest.raises(CellError, match=r"no targets for .*position . of input ."):
        score(table_of(kept([(0, LOGITS), (2, LOGITS)])), targets)


def test_the_summary_is_what_a_record_keeps() -> None:
    keep = kept([(0, LOGITS), (1, LOGITS)], [(0, LOGITS)])
    found = summarize(keep, [[1, 1], [1, 0], [0, 0]], "answers.parquet")
    assert isinstance(found, Outputs)
    assert (found.num_inputs, found.is_repeatable, found.file) == (2, True, "answers.parquet")
    assert (found.num_scored, found.num_correct) == (4, 3)
    assert found.sha256 == sha256_of(table_of(keep))
    assert (summarize(keep, None).num_scored, summarize(keep, None).num_correct) == (0, 0)


def test_the_answers_of_timed_forward_passes_are_the_models() -> None:
    handle, inputs = tiny_classifier(), batches(5)
    with torch.no_grad():
        for parameter in handle.model.parameters():
            parameter.mul_(8)
    keep = keep_answers(inputs, None)
    call = caller(TorchEager().prepare(handle, "cpu"), inputs, None, keep=keep)
    for index in range(12):
        call(index)
        if index % 4 == 3:
            call.take()
    with torch.inference_mode():
        expected = [handle.model(**batch).logits.argmax(dim=-1).tolist() for batch in inputs]
    assert {slot: list(answer) for slot, answer in keep.answers.items()} == dict(enumerate(expected))
    assert len({label for labels in expected for label in labels}) > 1
    assert keep.is_repeatable
    assert score(table_of(keep), expected) == (10, 10)


def test_the_answers_of_timed_generations_are_the_models() -> None:
    handle, inputs = tiny_causal_lm(num_layers=1), batches(3)
    session = TorchEager().prepare(handle, "cpu")
    keep = keep_answers(inputs, 4)
    call = caller(session, inputs, 4, keep=keep)
    for index in range(6):
        call(index)
    call.take()
    expected = [session.generate(batch, 4)[:, 6:].flatten().tolist() for batch in inputs]
    assert {slot: list(answer) for slot, answer in keep.answers.items()} == dict(enumerate(expected))
    assert keep.num_compared == 3
    assert keep.is_repeatable
