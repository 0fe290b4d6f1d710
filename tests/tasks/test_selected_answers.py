from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_generation import GSM8K, PROMPTS, SUMS, Prepared, data, evaluate

from compressbench.core.protocols import Written
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.generation import Generation
from compressbench.tasks.selection import Sampled, budgets, chosen, expected, score_texts, vote_of
from compressbench.testing import tiny_causal_lm

SAMPLED = GSM8K | {"num_samples": 4, "temperature": 0.8}


def test_the_commonest_answer_is_given_and_of_equals_the_first() -> None:
    assert chosen("majority", Sampled(["8", "7", "7", "8"], [False, True, True, False])) == 0
    assert chosen("majority", Sampled(["8", "7", "7", "9"], [False, True, True, False])) == 1
    assert chosen("majority", Sampled(["", "", "7"], [False, False, True])) == 2, "no answer has no vote"
    assert chosen("majority", Sampled(["", ""], [False, False])) == 0


def test_what_no_filter_found_has_no_vote_whatever_is_ignored() -> None:
    assert [vote_of(answer, [r"\W"], False) for answer in ("[invalid]", "1,000", "7.")] == ["", "1000", "7"]


def test_the_likeliest_text_is_given_and_of_equals_the_first() -> None:
    assert chosen("best-of-n", Sampled(["8", "7", "7"], [False, True, True], [-3.0, -1.0, -1.0])) == 1


def test_few_samples_are_recorded_one_by_one_and_many_by_doubling() -> None:
    assert budgets(4) == [1, 2, 3, 4]
    assert budgets(200) == [*range(1, 33), 64, 128, 200]


def test_all_samples_give_what_was_chosen_where_nothing_is_tied() -> None:
    sampled = Sampled(["8", "7", "7", "9"], [False, True, True, False], [-1.0, -2.0, -3.0, -4.0])
    assert expected("majority", sampled)["majority@4"] == 1.0
    assert expected("best-of-n", sampled)["best-of-n@4"] == 0.0
    assert expected("best-of-n", sampled)["best-of-n@1"] == 0.5
    assert expected("majority", sampled)["pass@2"] == pytest.approx(1 - 1 / 6)


def test_with_a_vote_the_metric_is_the_exact_match_of_the_voted_answer(tmp_path: Path) -> None:
    letters = ModelHandleOf.letters()
    texts = dict(zip(PROMPTS, [["8", "7", "7.", "9"], ["0", "1000", "1,000", "0"], ["no"] * 4], strict=True))
    task = Generation(data=data(tmp_path, SUMS), select="majority", **SAMPLED)
    rows = evaluate(task, letters, Prepared(texts))
    assert (task.metric, task.is_binary) == ("exact_match", True)
    assert [row.prediction for row in rows] == ["7", "0", "no"], "commas and full stops make no other vote"
    assert [row.score for row in rows] == [1.0, 0.0, 0.0]
    assert [row.also["pass@1"] for row in rows] == pytest.approx([0.5, 0.5, 0.0])
    assert rows[1].also["majority@4"] == pytest.approx(0.5), "a tie, whichever is drawn first"
    assert [row.also["prompt_tokens"] for row in rows] == [len(prompt) for prompt in PROMPTS]


class ModelHandleOf:
    """The handle of test_generation whose tokenizer has a token for each character."""

    @staticmethod
    def letters() -> ModelHandle:
        import dataclasses

        from test_generation import Characters

        return dataclasses.replace(tiny_causal_lm(num_layers=1), tokenizer=Characters())


def test_a_text_is_scored_by_its_mean_log_probability_and_read_once() -> None:
    handle = tiny_causal_lm(num_layers=1)
    session = TorchEager().prepare(handle, "cpu")
    prompt, texts = (3, 4, 5), [[6, 7], [8], [6, 7]]
    scored = score_texts(session, {prompt: [Written(text, True) for text in texts]}, 1000)[prompt]
    by_hand = []
    for text in texts:
        with torch.inference_mode():
            logits = handle.model(torch.tensor([[*prompt, *text]])).logits[0].log_softmax(-1)
        by_hand.append(sum(float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(text)) / len(text))
    assert scored.scores == pytest.approx(by_hand, abs=1e-4)
    assert scored.scores[0] == scored.scores[2]
    assert scored.num_tokens == (3 + 2) + (3 + 1)


@pytest.mark.parametrize("wrong", [{"select": "majority"}, {"select": "vote", "num_samples": 4, "temperature": 1}])
def test_a_selection_needs_several_samples_and_a_known_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Generation(data="x", doc_to_text="q", doc_to_target="a", **wrong)


def test_only_those_who_select_have_another_protocol() -> None:
    plain: dict[str, Any] = {"data": "x", "doc_to_text": "q", "doc_to_target": "a", "num_samples": 4, "temperature": 1}
    assert "select" not in Generation(**plain).protocol_id
    assert ",select=majority," in Generation(**plain, select="majority").protocol_id
