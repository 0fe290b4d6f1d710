from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from compressbench.data.embedded_data import embedded_path
from compressbench.data.samples import load_samples
from compressbench.data.synthetic_shapes import SHAPES, SIZE, generate


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_files_that_ship_are_what_the_process_makes(split: str) -> None:
    rows = pq.read_table(embedded_path("synthetic-shapes", f"{split}.parquet")).to_pylist()
    pictures, labels = generate(split, len(rows))
    assert [row["label"] for row in rows] == labels.tolist()
    for row, picture in zip(rows, pictures, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), picture)


def test_the_first_pictures_are_the_same_however_many_are_made_and_splits_share_none() -> None:
    few, many = generate("train", 20), generate("train", 60)
    assert np.array_equal(few[0], many[0][:20])
    assert not np.array_equal(generate("test", 20)[0], few[0])


def test_every_shape_is_there_about_as_often_and_has_its_name() -> None:
    pictures, labels = generate("test", 1000)
    assert pictures.shape == (1000, SIZE, SIZE)
    assert np.bincount(labels, minlength=8).min() > 125 - 4 * 125**0.5
    samples = load_samples("embedded:synthetic-shapes", split="test", columns={"image": "image", "label": "label"})
    assert samples.label_names == SHAPES


def test_the_embedded_model_has_the_accuracy_that_its_page_says() -> None:
    from compressbench.core.progress import SilentProgress
    from compressbench.core.watching import Unwatched
    from compressbench.models.load import load_model
    from compressbench.recipe.schema import ModelSpec
    from compressbench.runtimes.torch_eager import TorchEager
    from compressbench.tasks.image_classification import ImageClassification

    task = ImageClassification(data="embedded:synthetic-shapes")
    handle, samples = load_model(ModelSpec(id="embedded:vit-synthetic-shapes"), task.head), task.load()
    task.check_model(handle, samples)
    rows = task.evaluate(TorchEager().prepare(handle, "cpu"), handle, samples, SilentProgress(), Unwatched())
    assert task.summarize(rows) == pytest.approx(0.776, abs=0.003)
