"""The whole line with a server: a recipe in, records out, a real model behind the API, and no weights loaded here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from compressbench.measure.remote import NOT_HERE
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.records.record import Record
from compressbench.run import run_recipe
from compressbench.testing.endpoint import server_thread
from compressbench.testing.endpoint_model import ModelTokens

PROMPTS = ["ROMEO:", "JULIET:\nO", "KING HENRY:", "First Citizen:"]


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")


@pytest.fixture(scope="module")
def url(handle: ModelHandle) -> Iterator[str]:
    with server_thread(ModelTokens(handle)) as found:
        yield found


def written_here(handle: ModelHandle, prompt: str, num_tokens: int) -> str:
    ids = handle.tokenizer(prompt, return_tensors="pt")["input_ids"]
    made = handle.model.generate(ids, max_new_tokens=num_tokens, do_sample=False)
    return str(handle.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))


def run(
    tmp_path: Path, handle: ModelHandle, baseline: dict[str, Any], candidates: list[dict[str, Any]]
) -> list[Record]:
    """Half of the targets are what the model really writes."""
    rows = [
        {"q": prompt, "a": written_here(handle, prompt, 6) if at % 2 else "nothing like it"}
        for at, prompt in enumerate(PROMPTS * 16)
    ]
    data = tmp_path / "prompts.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    task = {
        "use": "generation",
        "data": str(data),
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "max_new_tokens": 6,
    }
    workload = {
        "tier": "smoke",
        "sequence_length": 8,
        "output_tokens": 3,
        "rounds": 2,
        "block_s": 0.01,
        "num_threads": 1,
    }
    recipe = {
        "name": "served",
        "model": "embedded:shakespeare-lm",
        "tasks": [task],
        "workload": workload,
        "meters": ["latency", "memory", "size"],
        "device": "cpu",
        "baseline": {"runtime": baseline},
        "candidates": [{"name": f"c{at}", **each} for at, each in enumerate(candidates)],
    }
    path = tmp_path / "served.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return list(run_recipe(path, tmp_path / "out"))


def endpoint(url: str, **options: Any) -> dict[str, Any]:
    return {"use": "endpoint", "url": url, "model": "m", **options}


def test_a_recipe_of_servers_needs_no_weights(
    tmp_path: Path, url: str, handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_weights(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("compressbench.models.load._load", no_weights)
    records = run(tmp_path, handle, endpoint(url), [{"runtime": endpoint(url, weights="the same")}])
    assert [record.status for record in records] == ["ok", "ok"]
    for record in records:
        assert record.scores[0].value is not None
        assert 0 < record.scores[0].value <= 0.5
        assert record.absent == {"memory": NOT_HERE, "size": NOT_HERE}
        assert record.audit is None
        assert record.work is not None
        assert record.work.reason == NOT_HERE
        assert record.measurement is not None
        assert all(set(block.num_tokens) == {3} for block in record.measurement.blocks)


def test_a_server_is_compared_with_the_model_here_and_says_when_it_cannot_be(
    tmp_path: Path, url: str, handle: ModelHandle
) -> None:
    broken = endpoint(url, extra_body={"behave": {"status": 500, "times": 1_000_000}})
    candidates: list[dict[str, Any]] = [
        {"runtime": endpoint(url)},
        {"runtime": broken},
    ]
    here, there, failed = run(tmp_path, handle, {"use": "torch"}, candidates)
    assert [each.status for each in (here, there, failed)] == ["ok", "ok", "failed"]
    assert here.scores[0].value == there.scores[0].value
    assert here.audit is not None
    assert there.audit is None
    assert here.reading("disk_bytes") is not None
    assert there.reading("disk_bytes") is None
    assert failed.failure is not None
    assert "answered 500" in failed.failure.message
