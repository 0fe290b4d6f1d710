"""`sentence-similarity`: do two sentences mean the same? Metric: Spearman's rank correlation with people's judgement."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compressbench.core.errors import CellError, DataError, ModelError, NotFiniteError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.samples import Samples, load_samples
from compressbench.data.sources import Form
from compressbench.models.config import model_folder
from compressbench.models.handle import ModelHandle
from compressbench.tasks import batching
from compressbench.tasks.from_data import FromData
from compressbench.tasks.spread import num_workload_batches, spread

if TYPE_CHECKING:
    import torch

_SENTENCES = ("text", "text_pair")
_POOLINGS = {"mean_tokens": "mean", "cls_token": "cls"}


class SentenceSimilarity(FromData):
    """Cosine of two sentence vectors against a given similarity, over all pairs: Spearman's rho with average ranks.

    Version 1: a sentence's vector is the mean of the last hidden states over its tokens (or that of its first token),
    scaled to length 1, as in Reimers and Gurevych, "Sentence-BERT" (2019). Sentences are truncated to max_length tokens
    and batched by length; equal ones are read once. A batch is padded to its longest sentence; methods that quantize
    activations per batch see that padding, so batch_size is part of the protocol. A sample is a pair: its prediction and
    score are the cosine, its target the given similarity.
    """

    version: ClassVar[int] = 1
    metric: ClassVar[str] = "spearman"
    direction: ClassVar[Literal["higher", "lower"]] = "higher"
    head: ClassVar[str] = "feature-extraction"
    form: ClassVar[Form] = "samples"

    text_column: str = "sentence1"
    text_pair_column: str = "sentence2"
    label_column: str = Field("label", description="the column of similarities: numbers of any range")
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="how the model was trained to make one vector; its 1_Pooling/config.json says so"
    )
    limit: int | None = Field(None, ge=2, description="evaluate only the first so many pairs")
    max_length: int = Field(256, ge=1, le=1_000_000)
    batch_size: int = Field(64, ge=1, le=65536)

    @property
    def protocol_id(self) -> str:
        options = f"pooling={self.pooling},max_length={self.max_length},batch_size={self.batch_size}"
        return f"sentence-similarity/v{self.version}:cosine,{options}"

    def load(self) -> Samples:
        return self._load(self.split, self.limit)

    def check_model(self, handle: ModelHandle, samples: Samples) -> None:
        """Any encoder has last hidden states, but another pooling than the one it was trained with makes it look bad.

        A folder of sentence-transformers names its pooling; of a Hub id that file isn't asked for.
        """
        its_own = _pooling_in(model_folder(handle.source.id))
        if its_own not in ("", self.pooling):
            raise ModelError(
                f"the model was trained with the pooling '{its_own}'",
                where=handle.source.id,
                got=f"pooling: {self.pooling}",
                do="Set the task's pooling to that." if its_own in ("mean", "cls") else "It can't be evaluated here.",
            )

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Samples, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        sentences = _distinct(samples)
        encoded = self._encode(handle, sentences)
        vectors = self._embed(session, handle, encoded, progress)
        at = {sentence: index for index, sentence in enumerate(sentences)}
        sides = [vectors[[at[sentence] for sentence in samples.columns[role]]] for role in _SENTENCES]
        for number, side in enumerate(sides, start=1):
            watch.vectors([f"{id_}:{number}" for id_ in samples.ids], side)
        cosines = (sides[0].double() * sides[1].double()).sum(dim=-1).tolist()
        cut = self._cut(handle, sentences, encoded)
        pairs = zip(*(samples.columns[role] for role in _SENTENCES), strict=True)
        return [
            SampleRow(
                id=id_, prediction=repr(cosine), target=repr(gold), score=cosine, is_truncated=not cut.isdisjoint(pair)
            )
            for id_, cosine, gold, pair in zip(samples.ids, cosines, samples.columns["gold"], pairs, strict=True)
        ]

    def summarize(self, rows: Sequence[SampleRow]) -> float:
        """Spearman's rho of the rows. Raises CellError where it isn't defined: all scores or all targets are the same."""
        from scipy.stats import spearmanr

        scores, targets = [row.score for row in rows], [float(row.target) for row in rows]
        if len(set(scores)) < 2 or len(set(targets)) < 2:
            which = "cosines" if len(set(scores)) < 2 else "given similarities"
            raise CellError(
                "equal values have no order, so that no rank correlation is defined",
                got=f"{len(rows)} {which} that are all the same",
                do="Evaluate more pairs; equal cosines mean a model that answers everything alike.",
            )
        return float(spearmanr(scores, targets).statistic)

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        if self.is_on_hub:
            return None
        samples = self._load(self.train_split, None) if training else self.load()
        return len(samples), sum(min(self.max_length, len(text) // 4 + 3) for text in _distinct(samples))

    def training_batches(self, handle: ModelHandle, batch_size: int, max_samples: int | None, seed: int) -> list[Batch]:
        raise DataError(
            "sentence similarity has no loss to train on here",
            where=self.data,
            do="Leave out the steps that train.",
        )

    def model_inputs(self, handle: ModelHandle, split: str) -> tuple[list[dict[str, Any]], str]:
        """Both sentences of every pair, each a row of its own.

        Splits of sentence pairs share sentences (257 of 2,552 in the test split of STS-B stand in its training split,
        too). Of another split than the evaluated one, those that the latter has are left out.
        """
        samples = self._load(split, None)
        sentences = [sentence for role in _SENTENCES for sentence in samples.columns[role]]
        rows: list[dict[str, Any]] = [dict(row) for row in self._encode(handle, sentences)]
        if split != self.split:
            known = {tuple(row["input_ids"]) for row in self._encode(handle, _distinct(self._load(self.split, None)))}
            rows = [row for row in rows if tuple(row["input_ids"]) not in known]
        return rows, samples.revision

    def workload_batches(
        self, handle: ModelHandle, samples: Samples, batch_size: int, sequence_length: int
    ) -> list[Batch]:
        """Sentences, not pairs: what is embedded in one call are `batch_size` of them."""
        sentences = _distinct(samples)
        count = num_workload_batches(len(sentences), batch_size)
        batching.require_positions(handle, sequence_length, "Lower workload.sequence_length.")
        chosen = [sentences[index] for index in spread(len(sentences), count * batch_size)]
        options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": sequence_length}
        encoded = handle.tokenizer(chosen, return_tensors="pt", **options)
        split = {name: tensor.split(batch_size) for name, tensor in encoded.items()}
        return [{name: parts[index] for name, parts in split.items()} for index in range(count)]

    def _embed(
        self, session: Session, handle: ModelHandle, encoded: Sequence[Mapping[str, list[int]]], progress: Progress
    ) -> torch.Tensor:
        """Unit vectors (sentences x hidden, float32) on the CPU."""
        import torch

        vectors: dict[int, torch.Tensor] = {}
        with progress.bar("evaluate", len(encoded)) as bar:
            for indices in batching.batches_by_length([len(row["input_ids"]) for row in encoded], self.batch_size):
                batch = batching.pad([dict(encoded[index]) for index in indices], handle.tokenizer)
                vectors |= zip(indices, self._pooled(session(batch), batch["attention_mask"]), strict=True)
                bar.advance(len(indices))
        found = torch.stack([vectors[index] for index in range(len(encoded))])
        if not bool(found.isfinite().all()):
            raise NotFiniteError(
                "the model gave vectors that are not finite", do="A method or data type overflowed; try bfloat16."
            )
        return found

    def _pooled(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        from compressbench.models.mean_pool import mean_pool

        if self.pooling == "cls":  # nothing but the first token, whichever side the padding is on
            mask = (mask.cumsum(dim=1) == 1) * mask
        return mean_pool(hidden, mask.to(hidden.device)).cpu()

    def _cut(self, handle: ModelHandle, sentences: Sequence[str], encoded: Sequence[Mapping[str, Any]]) -> set[str]:
        """Those of the sentences that are longer than max_length tokens."""
        full = [text for text, row in zip(sentences, encoded, strict=True) if len(row["input_ids"]) == self.max_length]
        ids = handle.tokenizer(full, truncation=False, verbose=False)["input_ids"] if full else []
        return {text for text, row in zip(full, ids, strict=True) if len(row) > self.max_length}

    def _encode(self, handle: ModelHandle, sentences: Sequence[str]) -> list[dict[str, list[int]]]:
        encoded = batching.encode(handle.tokenizer, sentences, None, self.max_length)
        longest = max(len(row["input_ids"]) for row in encoded)
        batching.require_positions(handle, longest, "Lower the task's max_length.")
        return encoded

    def _load(self, split: str, limit: int | None) -> Samples:
        columns = {"text": self.text_column, "text_pair": self.text_pair_column, "gold": self.label_column}
        samples = load_samples(
            self.data, split=split, columns=columns, revision=self.revision, config=self.config, limit=limit
        )
        where = f"{samples.source}, column '{self.label_column}'"
        samples.columns["gold"] = [
            _number(value, f"{where}, row {row}") for row, value in enumerate(samples.columns["gold"])
        ]
        return samples


def _pooling_in(folder: Path | None) -> str:
    """What sentence-transformers calls the pooling of a model in a folder, or ""."""
    path = None if folder is None else folder / "1_Pooling" / "config.json"
    if path is None or not path.is_file():
        return ""
    try:
        modes = [name for name, is_used in json.loads(path.read_text(encoding="utf-8")).items() if is_used is True]
    except (ValueError, AttributeError) as error:
        raise ModelError("the file on pooling can't be read", where=str(path), got=str(error)) from error
    used = [name.removeprefix("pooling_mode_") for name in modes if name.startswith("pooling_mode_")]
    return "+".join(_POOLINGS.get(name, name) for name in used)


def _distinct(samples: Samples) -> list[str]:
    """Every sentence once, in the order in which the pairs name them."""
    pairs = zip(*(samples.columns[role] for role in _SENTENCES), strict=True)
    return list(dict.fromkeys(sentence for pair in pairs for sentence in pair))


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError("a similarity must be a number", where=where, got=repr(value))
    return number
