from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_stand_in import HubStandIn
from transformers import BertConfig, BertForSequenceClassification

ATTEMPTS = """
from compressbench.core.errors import CompressbenchError
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec

def attempt(name, head="sequence-classification", **options):
    try:
        handle = load_model(ModelSpec(id=name, **options), head)
    except CompressbenchError as error:
        return {"kind": type(error).__name__, "exit_code": error.exit_code, "error": str(error)}
    weights = dict(handle.model.named_parameters())
    return {
        "id": handle.source.id,
        "revision": handle.source.revision,
        "bias": weights["classifier.bias"].tolist(),
        "tokens": handle.tokenizer.tokenize("hello world"),
        "is_training": handle.model.training,
    }
"""

ONLINE = (
    ATTEMPTS
    + """
print(json.dumps({
    "default": attempt("acme/tiny"),
    "branch": attempt("acme/tiny", revision="main"),
    "tag": attempt("acme/tiny", revision="v1"),
    "commit": attempt("acme/tiny", revision=given["old"]),
    "moving": attempt("acme/moving"),
    "no repository": attempt("acme/nothing"),
    "no revision": attempt("acme/tiny", revision="v2"),
    "no commit": attempt("acme/tiny", revision="0" * 40),
    "pickled": attempt("acme/pickled"),
    "custom code": attempt("acme/custom"),
    "another head": attempt("acme/tiny", "causal-lm"),
}))
"""
)

OFFLINE = (
    ATTEMPTS
    + """
print(json.dumps({
    "branch": attempt("acme/tiny"),
    "commit": attempt("acme/tiny", revision=given["old"]),
    "never loaded": attempt("acme/other"),
}))
"""
)


def tiny_model(folder: Path, *, bias: float, words: tuple[str, ...] = ("hello", "world")) -> dict[str, bytes]:
    """The files of a BERT classifier of a few thousand parameters whose classifier bias is `bias`."""
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        num_labels=2,
    )
    model = BertForSequenceClassification(config)
    model.classifier.bias.data.fill_(bias)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 16}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def pickled(files: dict[str, bytes], sprung: Path) -> dict[str, bytes]:
    rest = {name: content for name, content in files.items() if name != "model.safetensors"}
    return rest | {"pytorch_model.bin": pickle.dumps(Trap(sprung))}


def with_code(files: dict[str, bytes], sprung: Path) -> dict[str, bytes]:
    """A model of its own type, whose code leaves a file behind when it is imported."""
    classes = {
        "AutoConfig": "modeling_custom.CustomConfig",
        "AutoModelForSequenceClassification": "modeling_custom.CustomModel",
    }
    config = json.loads(files["config.json"]) | {"model_type": "custom-of-acme", "auto_map": classes}
    code = f"from pathlib import Path\nPath({str(sprung)!r}).touch()\n"
    return files | {"config.json": json.dumps(config).encode(), "modeling_custom.py": code.encode()}


@dataclass(frozen=True)
class Loaded:
    """What the child processes got, the commits of the two versions, and the folder that a trap would write to."""

    online: dict[str, Any]
    offline: dict[str, Any]
    asked_offline: list[str]
    old: str
    new: str
    before_move: str
    traps: Path


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    make, traps = tmp_path_factory.mktemp, tmp_path_factory.mktemp("traps")
    home = make("hub_home")
    first = tiny_model(make("first"), bias=1.0)
    second = tiny_model(make("second"), bias=2.0)
    other_words = tiny_model(make("other_words"), bias=3.0, words=("good", "bye"))
    with HubStandIn() as hub:
        old = hub.commit("model", "acme/tiny", first)
        new = hub.commit("model", "acme/tiny", second)
        hub.tag("model", "acme/tiny", "v1", old)
        hub.commit("model", "acme/pickled", pickled(first, traps / "pickle"))
        hub.commit("model", "acme/custom", with_code(first, traps / "code"))
        hub.commit("model", "acme/other", first)
        before_move = hub.commit("model", "acme/moving", first)

        def move(request: str) -> None:
            if request.startswith("GET /acme/moving/") and request.endswith("/model.safetensors"):
                hub.commit("model", "acme/moving", other_words)

        hub.after = move
        online = hub.run_child(ONLINE, home=home, old=old)
        num_requests = len(hub.requests)
        offline = hub.run_child(OFFLINE, home=home, is_offline=True, old=old)
        yield Loaded(online, offline, hub.requests[num_requests:], old, new, before_move, traps)


def test_a_branch_is_recorded_as_the_commit_it_stood_for(loaded: Loaded) -> None:
    expected = {
        "id": "acme/tiny",
        "revision": loaded.new,
        "bias": [2.0, 2.0],
        "tokens": ["hello", "world"],
        "is_training": False,
    }
    assert loaded.online["branch"] == expected
    assert loaded.online["default"] == expected


@pytest.mark.parametrize("attempt", ["tag", "commit"])
def test_an_older_revision_gives_the_older_weights(loaded: Loaded, attempt: str) -> None:
    assert loaded.online[attempt]["revision"] == loaded.old
    assert loaded.online[attempt]["bias"] == [1.0, 1.0]


def test_weights_and_tokenizer_are_of_one_commit_even_if_the_branch_moves_meanwhile(loaded: Loaded) -> None:
    moving = loaded.online["moving"]
    assert (moving["revision"], moving["bias"], moving["tokens"]) == (
        loaded.before_move,
        [1.0, 1.0],
        ["hello", "world"],
    )


def test_offline_the_cached_commit_is_used_and_nothing_is_asked(loaded: Loaded) -> None:
    assert loaded.offline["branch"]["revision"] == loaded.new
    assert loaded.offline["branch"] == loaded.online["branch"]
    assert loaded.offline["commit"] == loaded.online["commit"]
    assert loaded.asked_offline == []


@pytest.mark.parametrize(
    ("attempt", "parts"),
    [
        ("no repository", ["acme/nothing: no such model on the Hub"]),
        ("no revision", ["acme/tiny: the repository has no revision 'v2'"]),
        ("no commit", [f"acme/tiny: the repository has no revision '{'0' * 40}'"]),
        ("pickled", ["acme/pickled: ", "safetensors", "Pickled weights are never loaded"]),
        ("custom code", ["acme/custom: ", "code of its own", "trust_remote_code: true"]),
        ("another head", ["acme/tiny: ", "causal-lm"]),
    ],
)
def test_what_cannot_be_loaded_is_a_model_error_that_says_why(loaded: Loaded, attempt: str, parts: list[str]) -> None:
    got = loaded.online[attempt]
    assert (got.get("kind"), got.get("exit_code")) == ("ModelError", 2), got
    missing = [part for part in parts if part not in got["error"]]
    assert not missing, got["error"]
    assert "Traceback" not in got["error"]
    assert "urllib" not in got["error"]


def test_offline_what_was_never_loaded_is_a_model_error(loaded: Loaded) -> None:
    got = loaded.offline["never loaded"]
    assert (got.get("kind"), got.get("exit_code")) == ("ModelError", 2)
    assert "acme/other" in got["error"]


def test_no_pickle_was_opened_and_no_code_was_run(loaded: Loaded) -> None:
    assert list(loaded.traps.iterdir()) == []
