from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nontext_parts import grey_pictures, png, write_pictures

from compressbench.core.errors import DataError, MissingDependencyError, ModelError, NotFiniteError, UnsupportedError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks import image_classification
from compressbench.tasks.image_classification import ImageClassification
from compressbench.testing import tiny_image_classifier

SIZE = 16
LABELS = [at % 3 for at in range(20)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, split in enumerate(("test", "train")):
        pictures = [png(each) for each in grey_pictures(20, SIZE, seed)]
        write_pictures(folder / f"{split}.parquet", pictures, LABELS)
    return folder


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    """Its logits are centred, so that every label is predicted."""
    made = tiny_image_classifier()
    with torch.no_grad():
        made.model.classifier.weight.mul_(8)
        made.model.classifier.bias.copy_(-made.model(pixel_values=pixels(range(20))).logits.mean(dim=0))
    return made


def pixels(indices: Any) -> torch.Tensor:
    """What the processor should make of grey pictures of the model's own size: the same in three channels, from -1 to 1."""
    grey = np.stack([grey_pictures(20, SIZE)[at] for at in indices])
    return torch.tensor(grey).float().div(127.5).sub(1)[:, None].expand(-1, 3, -1, -1)


class Seen(Unwatched):
    def __init__(self) -> None:
        self.shown: dict[str, torch.Tensor] = {}

    def logits(self, ids: Any, logits: Any) -> None:
        self.shown |= zip(ids, logits, strict=True)


def evaluate(task: ImageClassification, handle: ModelHandle, watch: Any = None) -> list[SampleRow]:
    session = TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, task.load(), SilentProgress(), watch or Unwatched())


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_predictions_are_those_of_single_pictures_whatever_the_batch(
    data: Path, handle: ModelHandle, batch_size: int
) -> None:
    seen = Seen()
    task = ImageClassification(data=str(data), batch_size=batch_size)
    rows = evaluate(task, handle, seen)
    with torch.inference_mode():
        wanted = [handle.model(pixel_values=pixels([at])).logits[0] for at in range(20)]
    assert [row.prediction for row in rows] == [str(int(each.argmax())) for each in wanted]
    assert len({row.prediction for row in rows}) == 3
    assert [row.confidence for row in rows] == pytest.approx(
        [float(each.softmax(0).max()) for each in wanted], abs=1e-5
    )
    assert [row.target for row in rows] == [str(label) for label in LABELS]
    assert task.summarize(rows) == np.mean([row.prediction == row.target for row in rows])
    assert torch.stack([seen.shown[row.id] for row in rows]).numpy() == pytest.approx(torch.stack(wanted), abs=1e-5)


def test_pictures_of_another_size_are_resized_as_pillow_does_it(handle: ModelHandle, tmp_path: Path) -> None:
    from PIL import Image

    large = grey_pictures(1, 40)[0]
    write_pictures(tmp_path / "test.parquet", [png(large)], [0])
    task = ImageClassification(data=str(tmp_path))
    found = task.workload_batches(handle, task.load(), 1, 32)[0]["pixel_values"]
    small = np.asarray(Image.fromarray(large).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    wanted = torch.tensor(small.copy()).float().div(127.5).sub(1).permute(2, 0, 1)
    assert found.shape == (1, 3, SIZE, SIZE)
    assert found[0].numpy() == pytest.approx(wanted.numpy(), abs=1e-5)


def test_a_model_of_one_channel_sees_grey(data: Path) -> None:
    grey = tiny_image_classifier(num_channels=1)
    task = ImageClassification(data=str(data), limit=2)
    found = task.workload_batches(grey, task.load(), 2, 32)[0]["pixel_values"]
    assert found.numpy() == pytest.approx(pixels([0, 1])[:, :1].numpy(), abs=1e-5)


def test_bytes_without_a_struct_are_pictures_too(handle: ModelHandle, data: Path, tmp_path: Path) -> None:
    pictures = [png(each) for each in grey_pictures(20, SIZE)]
    write_pictures(tmp_path / "test.parquet", pictures, LABELS, as_struct=False)
    assert evaluate(ImageClassification(data=str(tmp_path)), handle) == evaluate(
        ImageClassification(data=str(data)), handle
    )


def test_no_more_pictures_are_decoded_at_once_than_a_batch_has(
    data: Path, handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    whole = image_classification._pixels

    def counted(handle: Any, samples: Any, indices: Any) -> torch.Tensor:
        decoded.append(len(indices))
        return whole(handle, samples, indices)

    monkeypatch.setattr(image_classification, "_pixels", counted)
    task = ImageClassification(data=str(data), batch_size=6)
    evaluate(task, handle)
    assert decoded == [6, 6, 6, 2]
    batches = task.training_batches(handle, 8, None, 0)
    assert (len(batches), decoded) == (3, [6, 6, 6, 2]), "a training batch is decoded when it is asked for"


def test_training_sees_every_picture_of_the_training_split_once_in_an_order_of_the_seed(
    data: Path, handle: ModelHandle
) -> None:
    task = ImageClassification(data=str(data))

    def seen(seed: int) -> list[tuple[bytes, int]]:
        batches = task.training_batches(handle, 8, None, seed)
        assert [len(batch["labels"]) for batch in batches] == [8, 8, 4]
        rows = [row for batch in batches for row in zip(batch["pixel_values"], batch["labels"], strict=True)]
        return [(image.numpy().tobytes(), int(label)) for image, label in rows]

    train = torch.tensor(np.stack(grey_pictures(20, SIZE, seed=1))).float().div(127.5).sub(1)[:, None]
    wanted = {(each.expand(3, -1, -1).numpy().tobytes(), label) for each, label in zip(train, LABELS, strict=True)}
    assert {label for _, label in seen(0)} == {0, 1, 2}
    assert {len(image) for image, _ in seen(0)} == {len(image) for image, _ in wanted}
    assert len(set(seen(0))) == 20
    assert sorted(label for _, label in seen(0)) == sorted(LABELS)
    assert seen(0) == seen(0)
    assert seen(0) != seen(1)
    assert sorted(seen(0)) == sorted(seen(1))


def test_training_on_what_is_evaluated_is_refused(data: Path, handle: ModelHandle) -> None:
    with pytest.raises(DataError, match="training would see the evaluation data"):
        ImageClassification(data=str(data), train_split="test").training_batches(handle, 4, None, 0)


def test_a_workload_has_pictures_of_every_label_and_their_targets(data: Path, handle: ModelHandle) -> None:
    task = ImageClassification(data=str(data))
    samples = task.load()
    batches = task.workload_batches(handle, samples, 4, 999)
    targets = task.workload_targets(handle, samples, 4, 999)
    assert [tuple(batch["pixel_values"].shape) for batch in batches] == [(4, 3, SIZE, SIZE)] * 5
    assert targets == [LABELS[at : at + 4] for at in range(0, 20, 4)]


def test_a_model_of_other_labels_is_refused(data: Path) -> None:
    task = ImageClassification(data=str(data))
    with pytest.raises(ModelError, match=r"5 labels and .* has 3"):
        task.check_model(tiny_image_classifier(num_labels=5), task.load())


def test_a_model_of_two_channels_is_refused(data: Path) -> None:
    task = ImageClassification(data=str(data))
    with pytest.raises(ModelError, match="a model of 2 channels"):
        task.check_model(tiny_image_classifier(num_channels=2), task.load())


def test_a_broken_picture_is_named(handle: ModelHandle, tmp_path: Path) -> None:
    write_pictures(tmp_path / "test.parquet", [png(grey_pictures(1)[0]), b"broken"], [0, 1])
    with pytest.raises(DataError, match="not a picture") as caught:
        evaluate(ImageClassification(data=str(tmp_path)), handle)
    assert caught.value.where == f"{tmp_path}, sample 1"


def test_logits_that_are_no_numbers_are_no_answer(data: Path) -> None:
    broken = tiny_image_classifier()
    with torch.no_grad():
        broken.model.classifier.bias[0] = torch.inf
    with pytest.raises(NotFiniteError):
        evaluate(ImageClassification(data=str(data)), broken)


def test_a_plan_says_that_pillow_is_missing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ImageClassification(data=str(data))
    task.check(training=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"compressbench\[vision\]"):
        task.check()


def test_pictures_are_not_drawn_for_calibration(data: Path, handle: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="rows of tokens"):
        ImageClassification(data=str(data)).model_inputs(handle, "train")
