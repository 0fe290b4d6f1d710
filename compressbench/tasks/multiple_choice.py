"""`multiple-choice`: which of several answers does a language model find the likeliest? Metrics: acc and acc_norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from compressbench.core.errors import DataError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.documents import Documents
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import longest_input
from compressbench.tasks.log_likelihood import Batching, encode_pairs, likelihoods
from compressbench.tasks.prompting import Prompted, Row, parsed_or_invalid
from compressbench.tasks.templates import column_or_text, literal, render_template


class _Question(NamedTuple):
    """A row's choices, the number of the right one, and a context and a continuation for each."""

    choices: list[str]
    right: int
    texts: list[tuple[str, str]]


class MultipleChoice(Prompted):
    """The arg max over the log-likelihoods of the choices, as they are (acc) or per character (acc_norm); first of equals.

    Version 1: the same prompts, tokens, cuts and scores as lm-evaluation-harness (arXiv:2405.14782). `doc_to_choice` is a
    list of templates, or one template (or column) that gives a list; `doc_to_target` gives the number of the right
    choice, or its text. With `multiple_input` (WinoGrande) the choices are whole contexts, `doc_to_text` gives the number
    of the right one, and `doc_to_target` the text that follows each of them; lm-evaluation-harness does so where
    doc_to_text gives a number. Batches of whole questions, and which tokens are read together, are part of the protocol,
    for methods that quantize activations per batch.
    """

    version: ClassVar[int] = 1
    direction: ClassVar[Literal["higher", "lower"]] = "higher"
    is_binary: ClassVar[bool] = True

    doc_to_choice: str | tuple[str, ...]
    multiple_input: bool = False
    metric: Literal["acc", "acc_norm"] = "acc_norm"
    batch_size: int = Field(64, ge=1, le=65536, description="choices read at once, at most")
    token_budget: int = Field(4096, ge=1, description="tokens read at once, at most, where more than one question is")

    @field_validator("doc_to_choice")
    @classmethod
    def _choices_parse(cls, templates: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for template in (templates,) if isinstance(templates, str) else templates:
            parsed_or_invalid(template)
        return templates

    @property
    def protocol_id(self) -> str:
        kind = f"{self.metric},batch_size={self.batch_size},token_budget={self.token_budget},prefix=shared"
        return f"multiple-choice/v{self.version}:{kind},{self.prompt_id}"

    def _prompt_options(self) -> tuple[str, ...]:
        return (*super()._prompt_options(), "doc_to_choice", "multiple_input")

    def choices(self, row: Row) -> list[str]:
        """The texts of a row's choices, at least two."""
        if isinstance(self.doc_to_choice, str):
            found = literal(self.doc_to_choice, row)
        else:
            found = [render_template(template, row) for template in self.doc_to_choice]
        if not isinstance(found, list) or len(found) < 2 or not all(isinstance(c, str) and c for c in found):
            raise DataError(
                "choices are a list of at least two texts, none of them empty",
                where=f"doc_to_choice {self.doc_to_choice!r}",
                got=repr(found),
            )
        return found

    def question(self, row: Row) -> str:
        if self.multiple_input:
            choices = self.choices(row)
            return choices[self._right(self.doc_to_text, row, choices)]
        return super().question(row)

    def answer(self, row: Row) -> str:
        if self.multiple_input:
            return super().answer(row)
        choices = self.choices(row)
        return choices[self._right(self.doc_to_target, row, choices)]

    def _right(self, template: str, row: Row, choices: Sequence[str]) -> int:
        """The number of the right choice. Digits of a template are a number, as in lm-evaluation-harness."""
        found = column_or_text(template, row)
        if isinstance(found, str):
            is_number = found.isascii() and found.isdigit() and (template not in row or found not in choices)
            found = int(found) if is_number else choices.index(found) if found in choices else found
        if not isinstance(found, int) or not 0 <= found < len(choices):
            raise DataError(
                "the right choice is the number or the text of one of the choices",
                where=f"template {template!r}",
                got=f"{found!r} of {list(choices)}",
                do="A split whose answers are withheld can't be scored.",
            )
        return int(found)

    def _asked(self, row: Row) -> _Question:
        choices, before = self.choices(row), self.fewshot_prefix(row)
        if self.multiple_input:
            ending = self.target_delimiter + super().answer(row)
            right = self._right(self.doc_to_text, row, choices)
            return _Question(choices, right, [(before + choice, ending) for choice in choices])
        context = before + super().question(row)
        right = self._right(self.doc_to_target, row, choices)
        return _Question(choices, right, [(context, self.target_delimiter + choice) for choice in choices])

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Documents, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        asked = [self._asked(row) for row in samples.rows]
        texts = [pair for question in asked for pair in question.texts]
        encoded = iter(encode_pairs(handle, texts, longest_input(handle, self.max_length)))
        pairs = [[next(encoded) for _ in question.texts] for question in asked]
        with progress.bar("evaluate", len(samples)) as bar:
            found = likelihoods(session, pairs, Batching(self.batch_size, self.token_budget), bar.advance)
        scores = [[each.log_likelihood for each in question] for question in found]
        rows = [
            self._row(id_, row, question, each, any(pair.is_truncated for pair in own))
            for id_, row, question, each, own in zip(samples.ids, samples.rows, asked, scores, pairs, strict=True)
        ]
        _show(watch, samples.ids, scores)
        return rows

    def _row(self, id_: str, row: Row, question: _Question, scores: list[float], is_truncated: bool) -> SampleRow:
        per_character = [score / len(choice) for score, choice in zip(scores, question.choices, strict=True)]
        likeliest = {"acc": _first_maximum(scores), "acc_norm": _first_maximum(per_character)}
        predicted = likeliest[self.metric]
        return SampleRow(
            id=id_,
            prediction=str(predicted),
            target=str(question.right),
            score=float(predicted == question.right),
            also={name: float(at == question.right) for name, at in likeliest.items() if name != self.metric},
            cluster=self.cluster_of(row),
            stratum=self.stratum_of(row),
            confidence=_softmax_at(scores, predicted),
            is_truncated=is_truncated,
        )


def _first_maximum(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda index: scores[index])


def _softmax_at(scores: Sequence[float], index: int) -> float:
    """The softmax over log-likelihoods at one of them."""
    return min(1.0, 1 / sum(math.exp(min(score - scores[index], 700.0)) for score in scores))


def _show(watch: Watch, ids: Sequence[str], scores: Sequence[list[float]]) -> None:
    """Questions with equally many choices together."""
    import torch

    by_number: dict[int, list[int]] = {}
    for index, each in enumerate(scores):
        by_number.setdefault(len(each), []).append(index)
    for some in by_number.values():
        values: Any = torch.tensor([scores[index] for index in some], dtype=torch.float64)
        watch.logits([ids[index] for index in some], values)
