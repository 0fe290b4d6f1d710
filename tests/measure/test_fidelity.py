"""What is kept of a baseline's answers, and how far a candidate's are from them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from compressbench.core.errors import CellError, NotFiniteError
from compressbench.core.questions import SampleRow
from compressbench.measure.fidelity import Compared, Remembered, divergence
from compressbench.records.store import RecordStore


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def row(id_: str, prediction: str = "a", num_tokens: int | None = None) -> SampleRow:
    return SampleRow(id=id_, prediction=prediction, target="a", score=1.0, num_tokens=num_tokens)


def compared(before: torch.Tensor, after: torch.Tensor, top_k: int = 32) -> Compared:
    names = [str(at) for at in range(len(before))]
    remembered = Remembered(top_k)
    remembered.logits(names, before)
    found = Compared(remembered)
    found.logits(names, after)
    return found


def exact(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL by PyTorch's own function, in double precision, one value per position."""
    p, q = (torch.log_softmax(each.double(), dim=-1) for each in (before, after))
    return torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(dim=-1).flatten()


def test_with_all_classes_kept_the_divergence_is_the_exact_one() -> None:
    before, after = draw(50, 20, seed=1), draw(50, 20, seed=2)
    found = compared(before, after).summary([row("0")], [row("0")])
    values = exact(before, after)
    assert found.kl_mean == pytest.approx(float(values.mean()), rel=1e-6)
    assert found.kl_median == pytest.approx(float(values.quantile(0.5)), rel=1e-6)
    assert found.kl_p99 == pytest.approx(float(values.quantile(0.99)), rel=1e-6)
    assert found.kl_max == pytest.approx(float(values.max()), rel=1e-6)
    assert (found.num_positions, found.num_classes, found.top_k) == (50, 20, 20)
    assert found.same_top_1 == pytest.approx(float((before.argmax(-1) == after.argmax(-1)).double().mean()))


@pytest.mark.parametrize("top_k", [1, 4, 32])
def test_with_few_classes_kept_it_is_a_lower_bound_and_near_for_a_peaked_model(top_k: int) -> None:
    before = draw(8, 30, 500, seed=3, scale=4.0)
    after = before + draw(8, 30, 500, seed=4, scale=0.3)
    found = torch.cat(compared(before, after, top_k).divergences)
    values = exact(before, after)
    assert bool((found <= values + 1e-6).all())
    if top_k == 32:
        assert float(found.mean()) > 0.8 * float(values.mean())


def test_the_classes_that_are_not_kept_count_as_one() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.4, 0.1, 0.5]).log()
    found = divergence(torch.tensor([0]), p[:1], q)
    assert float(found) == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.6))


def test_a_model_against_itself_is_at_zero_whatever_the_grouping() -> None:
    logits = draw(6, 9, 100, scale=5.0)
    remembered = Remembered()
    remembered.logits(["a", "b", "c"], logits[:3])
    remembered.logits(["d", "e", "f"], logits[3:])
    found = Compared(remembered)
    found.logits(["f", "a"], logits[[5, 0]])
    found.logits(["b", "c", "d", "e"], logits[1:5])
    summary = found.summary([row("a")], [row("a")])
    assert summary.kl_max == pytest.approx(0.0, abs=1e-6)
    assert (summary.same_top_1, summary.num_positions) == (1.0, 54)


def test_embeddings_are_compared_by_their_angle() -> None:
    remembered = Remembered()
    remembered.vectors(["a", "b"], torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    found = Compared(remembered)
    found.vectors(["b", "a"], torch.tensor([[1.0, 1.0], [3.0, 0.0]]))
    summary = found.summary([row("a")], [row("a")])
    assert summary.cosine_min == pytest.approx(math.sqrt(0.5))
    assert summary.cosine_mean == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert summary.kl_mean is None


def test_agreement_and_lengths_come_from_the_rows() -> None:
    before = [row("a", "x", 10), row("b", "y", 30)]
    after = [row("b", "y", 15), row("a", "z", 5)]
    summary = Compared(Remembered()).summary(before, after)
    assert (summary.agreement, summary.length_ratio) == (0.5, 0.5)
    assert Compared(Remembered()).summary([row("a")], [row("a")]).length_ratio is None


def test_other_items_or_positions_than_the_baselines_are_refused() -> None:
    remembered = Remembered()
    remembered.logits(["a"], draw(1, 4, 9))
    with pytest.raises(CellError, match="the same items for every model"):
        Compared(remembered).logits(["b"], draw(1, 4, 9))
    with pytest.raises(CellError, match="the same positions"):
        Compared(remembered).logits(["a"], draw(1, 3, 9))
    with pytest.raises(CellError, match="as many logits as it names items"):
        remembered.logits(["a", "b"], draw(1, 4, 9))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_no_divergence(value: float) -> None:
    logits = draw(1, 9)
    logits[0, 3] = value
    with pytest.raises(NotFiniteError, match="not finite"):
        Remembered().logits(["a"], logits)


def test_what_is_kept_of_the_baseline_can_be_read_again(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    logits = draw(2, 3, 50, scale=3.0)
    remembered = Remembered(top_k=4)
    remembered.logits(["a", "b"], logits)
    file, _ = RecordStore(tmp_path).write_columns("stem", "task.outputs", remembered.columns())
    table = pq.read_table(tmp_path / file).to_pydict()
    top = torch.log_softmax(logits, dim=-1).topk(4, dim=-1)
    assert (table["id"], table["position"]) == (["a"] * 3 + ["b"] * 3, [0, 1, 2] * 2)
    assert table["classes"] == top.indices.reshape(6, 4).tolist()
    assert table["log_probabilities"] == [pytest.approx(each) for each in top.values.reshape(6, 4).tolist()]
    assert Remembered().columns() == {}
