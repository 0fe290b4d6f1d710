"""The whole line, offline, for models of sentences, pictures, speech and clicks: a recipe in, records and a table out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from line_parts import recipe_data, write_recipe
from nontext_parts import grey_pictures, png, tone, write_handle, write_pictures, write_sounds

from compressbench.core.errors import RecipeError
from compressbench.plan import plan_file
from compressbench.records.record import Record
from compressbench.report.rows import rows_of
from compressbench.run import run_recipe
from compressbench.testing import (
    tiny_classifier,
    tiny_click_model,
    tiny_encoder,
    tiny_image_classifier,
    tiny_speech_model,
)

BF16 = {"name": "bf16", "compress": [{"use": "cast", "dtype": "bfloat16"}]}
INT8 = {"name": "int8", "compress": [{"use": "int8-dynamic"}]}
WORDS = ("cat", "dog", "mat", "home", "good", "bad")


def write_pairs(folder: Path) -> Path:
    folder.mkdir()
    for split, shift in (("test", 0), ("train", 7)):
        rows = [
            {
                "sentence1": f"the {WORDS[(at + shift) % 6]} is {WORDS[(at // 6) % 6]}",
                "sentence2": f"a {WORDS[(at * 5) % 6]} sat on the {WORDS[(at + shift) % 3]}",
                "label": (at * 7 % 11) / 2,
            }
            for at in range(30)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_picture_folder(folder: Path) -> Path:
    folder.mkdir()
    for seed, split in enumerate(("test", "train")):
        pictures = [png(each) for each in grey_pictures(24, seed=seed)]
        write_pictures(folder / f"{split}.parquet", pictures, [at % 3 for at in range(24)])
    return folder


def write_sound_folder(folder: Path) -> Path:
    folder.mkdir()
    for shift, split in enumerate(("test", "train")):
        sounds = [tone(200 + 50 * at + shift) for at in range(6)]
        write_sounds(folder / f"{split}.parquet", sounds, [f"the {word} sat" for word in WORDS])
    return folder


def write_click_folder(folder: Path) -> Path:
    folder.mkdir()
    for shift, split in enumerate(("test", "train")):
        rows = [
            {"age": at % 50, "visits": at, "user": at * 7, "item": f"shoe {(at + shift) % 23}", "device": at % 4,
             "label": int(at % 3 == shift)}
            for at in range(40)
        ]  # fmt: skip
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


TABLES4 = {"use": "embedding-quantization", "bits": 4}
PRUNED = [
    {"name": "rows", "compress": [{"use": "row-pruning", "sparsity": 0.5}, {"use": "cast"}]},
    {"name": "rare", "compress": [{"use": "rare-row-pruning", "sparsity": 0.5}, TABLES4, {"use": "int8-dynamic"}]},
]
CALIBRATED = {"name": "wanda", "compress": [{"use": "wanda", "sparsity": 0.5, "calibration": {"num_samples": 8}}]}
TAUGHT = {
    "name": "short",
    "compress": [{"use": "depth-pruning", "num_layers": 1}, {"use": "logit-distillation", "batch_size": 8}],
}
MAKERS: dict[str, tuple[Any, Any, dict[str, Any], list[dict[str, Any]]]] = {
    "sentence-similarity": (tiny_encoder, write_pairs, {}, [BF16, INT8, CALIBRATED]),
    "image-classification": (tiny_image_classifier, write_picture_folder, {}, [BF16, INT8, TAUGHT]),
    "speech-recognition": (tiny_speech_model, write_sound_folder, {"max_new_tokens": 12}, [BF16, INT8]),
    "click-prediction": (tiny_click_model, write_click_folder, {}, [BF16, INT8, *PRUNED]),
}


def recipe_for(task: str, folder: Path, candidates: list[dict[str, Any]], **sections: Any) -> Path:
    make, write, options, _ = MAKERS[task]
    model, data = write_handle(make(), folder / "model"), write(folder / "data")
    tasks = [{"use": task, "data": str(data), **options}]
    return write_recipe(folder / "tiny.yaml", recipe_data(model, data, candidates, tasks=tasks, **sections))


@pytest.fixture(scope="module", params=MAKERS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Record]]:
    folder = tmp_path_factory.mktemp("run")
    recipe = recipe_for(request.param, folder, MAKERS[request.param][3])
    return request.param, list(run_recipe(recipe, folder / "out", save=True))


def test_baseline_and_candidates_are_scored_timed_and_weighed(run: tuple[str, list[Record]]) -> None:
    task, records = run
    names = ["baseline", *(candidate["name"] for candidate in MAKERS[task][3])]
    assert [(record.candidate, record.status, record.failure) for record in records] == [
        (name, "ok", None) for name in names
    ]
    for row in rows_of(records):
        for name in ("throughput_per_s", "peak_memory_bytes", "disk_bytes", "num_parameters"):
            assert row.cells[name].value, f"{row.candidate} {name}: {row.cells[name].reason}"


def test_the_metric_is_the_tasks_own_and_half_the_bits_are_half_the_size(run: tuple[str, list[Record]]) -> None:
    task, records = run
    wanted = {"sentence-similarity": "spearman", "image-classification": "accuracy", "speech-recognition": "wer"}
    wanted["click-prediction"] = "log_loss"
    assert {record.scores[0].metric for record in records} == {wanted[task]}
    rows = {row.candidate: row for row in rows_of(records)}
    assert rows["bf16"].against_baseline["disk_bytes"].verdict == "lower"
    assert rows["int8"].against_baseline["disk_bytes"].verdict == "lower"


def test_what_was_saved_gives_the_same_answers_when_it_is_loaded_again(run: tuple[str, list[Record]]) -> None:
    for record in run[1][1:]:
        assert record.artefact is not None
        assert record.artefact.max_difference == 0


def test_nothing_is_claimed_falsely_and_the_work_of_a_call_is_counted(run: tuple[str, list[Record]]) -> None:
    for record in run[1]:
        assert record.audit is not None
        assert record.audit.claim_ok, record.audit.findings
        assert record.work is not None
        assert record.work.flops, record.work.reason


@pytest.mark.parametrize("task", ["image-classification", "speech-recognition", "click-prediction"])
def test_a_step_that_calibrates_on_tokens_is_refused_when_planned(task: str, tmp_path: Path) -> None:
    recipe = recipe_for(task, tmp_path, [{"name": "w", "compress": [{"use": "wanda", "sparsity": 0.5}]}])
    with pytest.raises(RecipeError, match="'wanda' calibrates on rows of tokens"):
        plan_file(str(recipe))


@pytest.mark.parametrize("task", ["sentence-similarity", "speech-recognition"])
def test_a_step_that_trains_is_refused_when_planned_where_no_loss_is_defined(task: str, tmp_path: Path) -> None:
    steps = [{"use": "recover"}]
    recipe = recipe_for(task, tmp_path, [{"name": "r", "compress": steps}])
    with pytest.raises(RecipeError, match=r"'recover' trains, and .* has no loss"):
        plan_file(str(recipe))


@pytest.mark.parametrize("task", MAKERS)
def test_a_model_without_the_tasks_head_is_refused_when_planned(task: str, tmp_path: Path) -> None:
    recipe = recipe_for(task, tmp_path, [])
    plan_file(str(recipe))
    other = write_handle(tiny_classifier(), tmp_path / "other")
    recipe.write_text(recipe.read_text().replace(str(tmp_path / "model"), str(other)))
    with pytest.raises(RecipeError, match=rf"'{task}' needs a model with the head"):
        plan_file(str(recipe))


def test_only_a_language_model_writes_tokens_that_are_timed(tmp_path: Path) -> None:
    workload = {"tier": "smoke", "output_tokens": 4}
    recipe = recipe_for("speech-recognition", tmp_path, [], workload=workload)
    with pytest.raises(RecipeError, match="only a language model can generate"):
        plan_file(str(recipe))
