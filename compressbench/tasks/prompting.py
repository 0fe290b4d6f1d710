"""What tasks that prompt a language model share: templates, few-shot examples, and the prompts as model inputs.

The options have the names that lm-evaluation-harness gives them, and prompts are put together as there
(arXiv:2405.14782), so that its task files can be copied.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from compressbench.core.errors import DataError, RecipeError
from compressbench.core.protocols import Batch
from compressbench.core.spec import content_hash
from compressbench.data.documents import Documents, load_documents
from compressbench.data.sources import Form, check_source
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import longest_input, padded, require_positions, shuffled_batches
from compressbench.tasks.from_data import FromData
from compressbench.tasks.leakage import refuse_evaluation_data
from compressbench.tasks.spread import shaped_batches
from compressbench.tasks.templates import check_template, column_or_text, render

if TYPE_CHECKING:
    import torch

_SAMPLED = 200
"""So many rows are rendered to estimate how many tokens there are."""

Row = dict[str, Any]

_LONGEST_CLUSTER = 64


class Prompted(FromData):
    """A template is Jinja2 over the columns of a row, or the name of a column.

    A prompt is the description, `num_fewshot` answered examples, and the question. The examples are the first rows of
    `fewshot_split` (those with the same value in the column `fewshot_by`, where that is given), never the row that is
    asked about: the sampler `first_n` of lm-evaluation-harness.
    """

    head: ClassVar[str] = "causal-lm"
    form: ClassVar[Form] = "samples"

    doc_to_text: str = Field(description="the question: a template or a column")
    doc_to_target: str = Field(description="the right answer: a template or a column")
    description: str = Field("", description="a template for what stands before everything else")
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    num_fewshot: int = Field(0, ge=0, le=1000)
    fewshot_split: str | None = Field(None, description="default: train_split")
    fewshot_by: str | None = Field(None, description="a column: examples have the same value there")
    limit: int | None = Field(None, ge=1, description="evaluate only the first so many rows")
    max_length: int | None = Field(None, ge=2, description="tokens at once; default: what the model can read")
    stratum_column: str | None = None
    cluster_column: str | None = None

    @field_validator("doc_to_text", "doc_to_target", "description")
    @classmethod
    def _parses(cls, template: str) -> str:
        return parsed_or_invalid(template)

    def check(self, *, training: bool = False) -> None:
        super().check(training=training)
        if self.num_fewshot:
            check_source(self.data, self._fewshot_split, form=self.form)

    @property
    def prompt_id(self) -> str:
        """What decides the prompts, for the protocol's id; templates are long, and stand there as a hash."""
        prompts = {name: getattr(self, name) for name in self._prompt_options()}
        return f"prompt={content_hash(prompts)},num_fewshot={self.num_fewshot},max_length={self.max_length or 'model'}"

    def _prompt_options(self) -> tuple[str, ...]:
        options: tuple[str, ...] = ("doc_to_text", "doc_to_target", "description", "target_delimiter")
        return (*options, "fewshot_delimiter", "fewshot_split", "fewshot_by") if self.num_fewshot else options

    def load(self) -> Documents:
        return self.documents(self.split, self.limit)

    def documents(self, split: str, limit: int | None = None) -> Documents:
        return load_documents(self.data, split=split, revision=self.revision, config=self.config, limit=limit)

    def check_model(self, handle: ModelHandle, samples: Documents) -> None:
        if self.max_length is not None:
            require_positions(handle, self.max_length, "Lower the task's max_length.")

    def render(self, template: str, row: Row) -> str:
        """The text of a template for a row; DataError with both if it can't be filled in."""
        return render(template, row)

    def question(self, row: Row) -> str:
        return self.render(self.doc_to_text, row)

    def answer(self, row: Row) -> str:
        """The right answer as text."""
        return self.render(self.doc_to_target, row)

    def fewshot_prefix(self, row: Row) -> str:
        """The description and the answered examples, with the delimiter after the last of them."""
        description = self.render(self.description, row) if self.description else ""
        return description + "".join(self._fewshot_texts(row))

    def context(self, row: Row) -> str:
        """All that the model reads before it answers."""
        return self.fewshot_prefix(row) + self.question(row)

    def whole_text(self, row: Row) -> str:
        """The prompt and its right answer."""
        return self.context(row) + self.target_delimiter + self.answer(row)

    def stratum_of(self, row: Row) -> str:
        return "" if self.stratum_column is None else str(column_of(row, self.stratum_column))

    def cluster_of(self, row: Row) -> str:
        """The column's value; a long one, such as a passage, by its hash."""
        value = "" if self.cluster_column is None else str(column_of(row, self.cluster_column))
        return value if len(value) <= _LONGEST_CLUSTER else content_hash(value)

    @property
    def _fewshot_split(self) -> str:
        return self.fewshot_split or self.train_split

    @cached_property
    def _fewshot_pool(self) -> dict[Any, list[tuple[Row, str]]]:
        """Rows and the text of each as an example, by their value in `fewshot_by`."""
        pool: dict[Any, list[tuple[Row, str]]] = {}
        for row in self.documents(self._fewshot_split).rows:
            group = None if self.fewshot_by is None else str(column_of(row, self.fewshot_by))
            members = pool.setdefault(group, [])
            if len(members) <= self.num_fewshot:  # one more, for where the row that is asked about is among them
                members.append((row, self._example(row)))
        return pool

    def _example(self, row: Row) -> str:
        return f"{self.question(row)}{self.target_delimiter}{self.answer(row)}{self.fewshot_delimiter}"

    def _fewshot_texts(self, row: Row) -> list[str]:
        if self.num_fewshot == 0:
            return []
        group = None if self.fewshot_by is None else str(column_of(row, self.fewshot_by))
        texts = [text for example, text in self._fewshot_pool.get(group, []) if example != row]
        if len(texts) < self.num_fewshot:
            raise DataError(
                "there are too few few-shot examples",
                where=f"{self.data}, split '{self._fewshot_split}'",
                got=f"{len(texts)} with {self.fewshot_by} = {group!r}" if group else f"{len(texts)}",
                do="Lower num_fewshot.",
            )
        return texts[: self.num_fewshot]

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        if self.is_on_hub:
            return None
        rows = (self.documents(self.train_split) if training else self.load()).rows
        some = rows[:_SAMPLED]
        num_characters = sum(len(self.whole_text(row)) for row in some)
        return len(rows), num_characters * len(rows) // len(some) // 4 + len(rows)

    def training_batches(self, handle: ModelHandle, batch_size: int, max_samples: int | None, seed: int) -> list[Batch]:
        """Prompts with their right answers, from the training split; labels are all tokens but the padding."""
        check_source(self.data, self.train_split, form=self.form)
        refuse_evaluation_data(self.data, self.split, self.train_split)
        encoded = self._encode(handle, self.documents(self.train_split, max_samples))
        batches = shuffled_batches([len(ids) for ids in encoded], batch_size, seed)
        return [_with_labels(padded([encoded[index] for index in indices])) for indices in batches]

    def model_inputs(self, handle: ModelHandle, split: str) -> tuple[list[dict[str, Any]], str]:
        documents = self.documents(split)
        encoded = self._encode(handle, documents)
        return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in encoded], documents.revision

    def workload_batches(
        self, handle: ModelHandle, samples: Documents, batch_size: int, sequence_length: int
    ) -> list[Batch]:
        """The prompts one after the other, cut into the exact shape."""
        import torch

        ids = torch.tensor([token for row in self._encode(handle, samples) for token in row])
        return shaped_batches(handle, ids, (batch_size, sequence_length), "the prompts have", self.data)

    def _encode(self, handle: ModelHandle, documents: Documents) -> list[list[int]]:
        """Token ids of every prompt with its right answer; of one that is too long, the end."""
        texts = [self.whole_text(row) for row in documents.rows]
        ids = handle.tokenizer(texts, verbose=False)["input_ids"]
        longest = longest_input(handle, self.max_length)
        return [row[-longest:] for row in ids]


def parsed_or_invalid(template: str) -> str:
    """The template; ValueError, which a recipe's plan turns into an error with file and key, if it doesn't parse."""
    try:
        check_template(template)
    except RecipeError as error:
        raise ValueError(str(error)) from error
    return template


def column_of(row: Row, name: str) -> Any:
    """The value of a column; DataError if there is none of that name, or none in this row."""
    if name not in row:
        raise DataError(f"no column '{name}'", got=f"columns {', '.join(row)}", do="Name one of these.")
    return column_or_text(name, row)


def _with_labels(batch: dict[str, torch.Tensor]) -> Batch:
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}
