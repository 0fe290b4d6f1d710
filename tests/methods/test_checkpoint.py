from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from lessons import Listener, PowerCutError, are_equal, listened, resumed, sentences, sharpened, supplied, weights
from safetensors import SafetensorError

from compressbench.core.errors import CellError, OutputError
from compressbench.methods.distillation.recover import Recover
from compressbench.models.handle import ModelHandle
from compressbench.testing import tiny_classifier


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return sharpened(tiny_classifier(num_layers=1))


def run(classifier: ModelHandle, folder: Path, cut_after: int | None = None, **options: Any) -> ModelHandle:
    """Training with dropout; checkpoints at 2, 4 and 6 of 8 steps."""
    step = Recover(**{"num_epochs": 2, "learning_rate": 3e-3, "checkpoint_every": 2, "precision": "float32", **options})
    return step.apply(listened(supplied(classifier, None, sentences(), seed=4), Listener(cut_after), folder))


@pytest.mark.parametrize("cut_after", [3, 5, 7])
@pytest.mark.parametrize("accumulated", [1, 3])
def test_an_interrupted_run_ends_with_the_same_bits(
    classifier: ModelHandle, tmp_path: Path, cut_after: int, accumulated: int
) -> None:
    step = Recover(
        num_epochs=2 * accumulated,
        gradient_accumulation_steps=accumulated,
        learning_rate=3e-3,
        checkpoint_every=2,
        precision="float32",
    )
    given = supplied(classifier, None, sentences(), seed=4)
    whole = step.apply(given.copy())
    cut = resumed(step, given, tmp_path, cut_after)
    assert are_equal(weights(cut), weights(whole))
    assert cut.notes["resumed_at_step"] == cut_after - 1
    assert {**cut.notes, "resumed_at_step": 0} == {**whole.notes, "resumed_at_step": 0}


def test_the_bar_begins_where_the_run_goes_on(classifier: ModelHandle, tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        run(classifier, tmp_path, cut_after=5)
    listener = Listener()
    step = Recover(num_epochs=2, learning_rate=3e-3, checkpoint_every=2, precision="float32")
    step.apply(listened(supplied(classifier, None, sentences(), seed=4), listener, tmp_path))
    assert listener.amounts == [4, 1, 1, 1, 1]


@pytest.mark.parametrize("other", [{"learning_rate": 2e-3}, {"weight_decay": 0.5}, {"num_epochs": 3}])
def test_a_checkpoint_of_other_options_is_not_gone_on_from(
    classifier: ModelHandle, tmp_path: Path, other: dict[str, Any]
) -> None:
    with pytest.raises(PowerCutError):
        run(classifier, tmp_path, cut_after=3)
    done = run(classifier, tmp_path, **other)
    assert "resumed_at_step" not in done.notes
    assert are_equal(weights(done), weights(run(classifier, tmp_path / "fresh", **other)))


def test_without_a_folder_or_a_rhythm_nothing_is_written(classifier: ModelHandle, tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        run(classifier, tmp_path, cut_after=5, checkpoint_every=None)
    assert list(tmp_path.iterdir()) == []
    plain = Recover(num_epochs=2, learning_rate=3e-3, checkpoint_every=2, precision="float32")
    plain.apply(supplied(classifier, None, sentences(), seed=4))


def test_a_checkpoint_that_cant_be_read_is_no_silent_start(classifier: ModelHandle, tmp_path: Path) -> None:
    (tmp_path / "training.safetensors").write_bytes(b"half a file")
    with pytest.raises(CellError, match="the checkpoint can't be read") as caught:
        run(classifier, tmp_path)
    assert "Delete it" in caught.value.do


def test_a_full_disk_leaves_the_checkpoint_before(
    classifier: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = safetensors.torch.save_file, []

    def fails_the_second_time(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device")
        real(tensors, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", fails_the_second_time)
    with pytest.raises(OutputError, match="No space left on device"):
        run(classifier, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]
    done = run(classifier, tmp_path)
    assert done.notes["resumed_at_step"] == 2
    assert are_equal(weights(done), weights(run(classifier, tmp_path)))
