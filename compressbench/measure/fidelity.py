"""How far a candidate's answers are from the baseline's: what is kept of the baseline, and what is compared as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.errors import CellError, NotFiniteError
from compressbench.core.questions import SampleRow
from compressbench.records.score import Fidelity

if TYPE_CHECKING:
    import torch

TOP_K = 32
# below this share of the baseline's probability all other classes together say nothing
_NEGLIGIBLE = 1e-7


class _Top(NamedTuple):
    """The likeliest classes of one item: ids and log-probabilities, each (positions x k)."""

    ids: torch.Tensor
    log_probabilities: torch.Tensor


@dataclass
class Remembered:
    """What a baseline answered, compactly: its likeliest classes and its embeddings, by item. A Watch of the baseline."""

    top_k: int = TOP_K
    num_classes: int = 0
    tops: dict[str, _Top] = field(default_factory=dict)
    embeddings: dict[str, torch.Tensor] = field(default_factory=dict)

    def logits(self, ids: Sequence[str], logits: torch.Tensor) -> None:
        log_probabilities = _log_softmax(logits, len(ids))
        self.num_classes = log_probabilities.shape[-1]
        found = log_probabilities.topk(min(self.top_k, self.num_classes), dim=-1)
        values, classes = found.values.cpu(), found.indices.int().cpu()
        self.tops |= {id_: _Top(classes[at], values[at]) for at, id_ in enumerate(ids)}

    def vectors(self, ids: Sequence[str], vectors: torch.Tensor) -> None:
        self.embeddings |= {id_: vector.float().cpu() for id_, vector in zip(ids, vectors, strict=True)}

    def columns(self) -> Mapping[str, Any]:
        """The likeliest classes as a table of one row per position; empty where no logits were shown."""
        import pyarrow as pa
        import torch

        if not self.tops:
            return {}
        lengths = [len(top.ids) for top in self.tops.values()]
        classes = torch.cat([top.ids for top in self.tops.values()])
        values = torch.cat([top.log_probabilities for top in self.tops.values()])
        width = classes.shape[1]
        return {
            "id": [id_ for id_, count in zip(self.tops, lengths, strict=True) for _ in range(count)],
            "position": [at for count in lengths for at in range(count)],
            "classes": pa.FixedSizeListArray.from_arrays(classes.flatten().numpy(), width),
            "log_probabilities": pa.FixedSizeListArray.from_arrays(values.flatten().numpy(), width),
        }


@dataclass
class Compared:
    """A candidate's answers against the remembered ones. A Watch of the candidate."""

    baseline: Remembered
    divergences: list[torch.Tensor] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    num_same: int = 0

    def logits(self, ids: Sequence[str], logits: torch.Tensor) -> None:
        import torch

        log_probabilities = _log_softmax(logits, len(ids))
        tops = [_known(self.baseline.tops, id_) for id_ in ids]
        theirs = _Top(*(torch.stack(parts).to(logits.device) for parts in zip(*tops, strict=True)))
        if theirs.ids.shape[:-1] != log_probabilities.shape[:-1]:
            raise CellError(
                "a task must show the same positions of an item for every model",
                got=f"{list(log_probabilities.shape[:-1])} positions where the baseline has {list(theirs.ids.shape[:-1])}",
            )
        self.divergences.append(divergence(theirs.ids, theirs.log_probabilities, log_probabilities).flatten().cpu())
        self.num_same += int((log_probabilities.argmax(dim=-1) == theirs.ids[..., 0]).sum())

    def vectors(self, ids: Sequence[str], vectors: torch.Tensor) -> None:
        import torch

        theirs = torch.stack([_known(self.baseline.embeddings, id_) for id_ in ids])
        self.cosines += torch.nn.functional.cosine_similarity(vectors.float().cpu(), theirs, dim=-1).tolist()

    def summary(self, before: Sequence[SampleRow], after: Sequence[SampleRow]) -> Fidelity:
        """With what the rows say: the share of equal predictions, and how much longer or shorter the answers became."""
        theirs = {row.id: row for row in before}
        agreement = sum(row.prediction == theirs[row.id].prediction for row in after) / len(after)
        return Fidelity(
            agreement=agreement,
            length_ratio=_length_ratio(before, after),
            **self._of_divergences(),
            **self._of_cosines(),
        )

    def _of_divergences(self) -> dict[str, Any]:
        import torch

        if not self.divergences:
            return {}
        values = torch.cat(self.divergences).double().sort().values
        middle, high = (float(values.quantile(q)) if len(values) < 2**24 else _at(values, q) for q in (0.5, 0.99))
        return {
            "num_positions": len(values),
            "num_classes": self.baseline.num_classes,
            "top_k": min(self.baseline.top_k, self.baseline.num_classes),
            "same_top_1": self.num_same / len(values),
            "kl_mean": float(values.mean()),
            "kl_median": middle,
            "kl_p99": high,
            "kl_max": float(values[-1]),
        }

    def _of_cosines(self) -> dict[str, Any]:
        if not self.cosines:
            return {}
        return {"cosine_mean": sum(self.cosines) / len(self.cosines), "cosine_min": min(self.cosines)}


def divergence(classes: torch.Tensor, theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """KL in nats over the k given classes and one of all others; a lower bound of the whole by the log-sum inequality.

    `classes` and `theirs` are (... x k): ids and log-probabilities of the reference; `ours` is (... x all classes),
    log-probabilities of what is compared with it. The result has the leading dimensions.
    """
    q = ours.gather(-1, classes.long()).double()
    p = theirs.double()
    inside = (p.exp() * (p - q)).sum(dim=-1)
    if classes.shape[-1] == ours.shape[-1]:
        return inside.clamp_min(0.0)
    rest_p, rest_q = (1 - p.exp().sum(dim=-1)).clamp_min(0.0), (1 - q.exp().sum(dim=-1)).clamp_min(_NEGLIGIBLE)
    outside = rest_p * (rest_p.clamp_min(_NEGLIGIBLE).log() - rest_q.log())
    return (inside + outside.where(rest_p > _NEGLIGIBLE, 0.0)).clamp_min(0.0)


def _log_softmax(logits: torch.Tensor, num_items: int) -> torch.Tensor:
    """Log-probabilities (items x positions x classes), float32."""
    import torch

    if logits.dim() == 2:
        logits = logits.unsqueeze(1)
    if len(logits) != num_items:
        raise CellError("a task must show as many logits as it names items", got=f"{len(logits)} and {num_items}")
    if not bool(logits.isfinite().all()):
        raise NotFiniteError("the model gave logits that are not finite", do="Try bfloat16 or a milder setting.")
    return torch.log_softmax(logits.float(), dim=-1)


def _known(items: Mapping[str, Any], id_: str) -> Any:
    if id_ not in items:
        raise CellError("a task must show the same items for every model", got=repr(id_))
    return items[id_]


def _at(ordered: torch.Tensor, probability: float) -> float:
    return float(ordered[int(probability * (len(ordered) - 1))])


def _length_ratio(before: Sequence[SampleRow], after: Sequence[SampleRow]) -> float | None:
    theirs, ours = (sum(row.num_tokens or 0 for row in rows) for rows in (before, after))
    return ours / theirs if theirs else None
