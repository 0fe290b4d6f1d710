from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.deploying import RunsFiles, SaysWhatItRuns, facts_of
from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.core.protocols import Batch, Decoding, Session
from compressbench.core.registry import runtimes
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.exported import export_whole
from compressbench.runtimes.openvino import OpenVino
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier, tiny_encoder, tiny_image_classifier

pytest.importorskip("openvino", reason="OpenVINO isn't installed (extra openvino)")

LIMIT = 1e-4
FILES = ("openvino_model.xml", "openvino_model.bin")


def texts(rows: int, length: int, *, left: bool = False, vocabulary: int = 19) -> Batch:
    """Random token ids, the first row padded by two if there are several."""
    ids = torch.randint(4, vocabulary, (rows, length), generator=torch.Generator().manual_seed(rows * 100 + length))
    mask = torch.ones_like(ids)
    if rows > 1:
        mask[0, slice(0, 2) if left else slice(-2, None)] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def largest_difference(session: Session, handle: ModelHandle, batch: Batch) -> float:
    """Of logits or hidden states at all positions that aren't padding."""
    expected, found = TorchEager().prepare(handle, "cpu")(batch), session(batch)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    difference = (found - expected).abs()
    if difference.dim() == 3:
        difference = difference[batch["attention_mask"].bool()]
    return float(difference.max())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ModelHandle, Path]]:
    made = {}
    for make in (tiny_classifier, tiny_encoder, tiny_image_classifier, tiny_causal_lm):
        handle, folder = make(), tmp_path_factory.mktemp(make.__name__)
        export_whole(OpenVino(), "openvino", handle, folder)
        made[make.__name__] = handle, folder
    return made


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_word_openvino_is_this_runtime() -> None:
    assert runtimes.resolve("openvino") is OpenVino
    assert isinstance(OpenVino(), RunsFiles)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", ["tiny_classifier", "tiny_encoder", "tiny_causal_lm"])
def test_float32_gives_eager_outputs_at_any_batch_and_length(name: str, num_threads: int, folders: Any) -> None:
    handle, folder = folders[name]
    torch.set_num_threads(num_threads)
    session: Any = OpenVino().open(folder, "cpu")
    for rows, length in [(1, 1), (1, 9), (3, 6), (2, 17), (1, 9)]:
        assert largest_difference(session, handle, texts(rows, length)) < LIMIT
    session.close()


@pytest.mark.parametrize("rows", [1, 5])
def test_images_are_classified_as_by_eager(rows: int, folders: Any) -> None:
    handle, folder = folders["tiny_image_classifier"]
    config = handle.model.config
    pixels = torch.randn(rows, config.num_channels, config.image_size, config.image_size)
    batch = {"pixel_values": pixels}
    session: Any = OpenVino().open(folder, "cpu")
    assert largest_difference(session, handle, batch) < LIMIT
    assert largest_difference(session, handle, {"pixel_values": pixels.transpose(2, 3)}) < LIMIT


def test_an_answer_is_not_overwritten_by_the_next(folders: Any) -> None:
    session: Any = OpenVino().open(folders["tiny_classifier"][1], "cpu")
    first = session(texts(1, 5))
    kept = first.clone()
    assert not torch.equal(session(texts(1, 6)), kept)
    assert torch.equal(first, kept)


def test_inputs_that_may_be_left_out_have_their_usual_values_and_others_are_refused(folders: Any) -> None:
    folder = folders["tiny_classifier"][1]
    session: Any = OpenVino().open(folder, "cpu")
    batch = texts(1, 7)
    assert torch.equal(session({"input_ids": batch["input_ids"]}), session(batch))
    with pytest.raises(UnsupportedError, match="head_mask"):
        session({**batch, "head_mask": torch.ones(1)})
    with pytest.raises(UnsupportedError, match="generates"):
        session.generate(batch, 3)


@pytest.mark.usefixtures("threads")
def test_streams_share_a_batch_and_keep_the_order_of_its_rows(folders: Any) -> None:
    handle, folder = folders["tiny_classifier"]
    torch.set_num_threads(2)
    session: Any = OpenVino(hint="throughput").open(folder, "cpu")
    assert session.deployed.notes["num_streams"] == 2
    for rows in (1, 2, 5, 8):
        assert largest_difference(session, handle, texts(rows, 6)) < LIMIT


def test_a_static_shape_has_a_graph_of_its_own_and_others_go_on_as_before(folders: Any) -> None:
    handle, folder = folders["tiny_classifier"]
    session: Any = OpenVino(static_shapes=((2, 6), (1, 9))).open(folder, "cpu")
    for rows, length in [(2, 6), (1, 9), (1, 6), (2, 6)]:
        assert largest_difference(session, handle, texts(rows, length)) < LIMIT
    general, fixed = (session.kernels(texts(rows, 6)) for rows in (3, 2))
    assert general.counts != fixed.counts  # sizes that are known need no nodes that find them out
    assert any(name.startswith(fixed.wanted) for name in fixed.counts)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_embedded_language_model_writes_the_same_tokens(rows: int) -> None:
    handle = load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")
    batch = texts(rows, 11, left=True, vocabulary=1000)
    calls: list[int] = []
    session: Any = OpenVino().prepare(handle, "cpu")
    eager = TorchEager().prepare(handle, "cpu")
    assert largest_difference(session, handle, texts(2, 30, vocabulary=1000)) < 1e-3
    expected = eager.generate(batch, 40)
    assert torch.equal(session.generate(batch, 40, lambda: calls.append(1)), expected)
    assert len(calls) == 40
    assert torch.equal(session.generate(batch, 40), expected)  # nothing remains of the text before
    decoding = Decoding(max_new_tokens=25)
    assert session.write(batch, decoding) == eager.write(batch, decoding)
    assert session.kv_cache_bytes(batch, 40) == eager.kv_cache_bytes(batch, 40)


def test_generation_after_other_batches_is_the_same(folders: Any) -> None:
    handle, folder = folders["tiny_causal_lm"]
    session, eager = OpenVino().open(folder, "cpu"), TorchEager().prepare(handle, "cpu")
    for rows, length in [(2, 5), (1, 3), (4, 9), (2, 5)]:
        batch = texts(rows, length, left=True)
        assert torch.equal(session.generate(batch, 12), eager.generate(batch, 12))


def test_a_session_says_what_it_runs(folders: Any) -> None:
    handle, folder = folders["tiny_causal_lm"]
    session: Any = OpenVino().open(folder, "cpu")
    assert isinstance(session, SaysWhatItRuns)
    batch = texts(1, 4)
    use = session.kernels(batch, 3)
    assert use is not None
    assert any(name.startswith(use.wanted) for name in use.counts)
    assert use.fallbacks == ()
    deployed = session.deployed
    assert deployed.engine.startswith("openvino 20")
    assert deployed.precision == "float32"
    assert deployed.num_files_bytes == sum((folder / name).stat().st_size for name in FILES)
    assert deployed.seconds.keys() >= {"open_s", "compile_s"}
    # the table of embeddings is tied to the last product here, so that a pass reads it whole
    in_products = sum(weights.nbytes for weights in handle.model.parameters() if weights.dim() == 2)
    assert in_products <= (deployed.weight_bytes or 0) <= in_products * 1.1


def test_embeddings_are_not_weights_that_every_pass_reads(folders: Any) -> None:
    handle, folder = folders["tiny_encoder"]
    opened: Any = OpenVino().open(folder, "cpu")
    deployed = opened.deployed
    tables = sum(weights.nbytes for name, weights in handle.model.named_parameters() if "embeddings.weight" in name)
    total = sum(weights.nbytes for weights in handle.model.parameters())
    assert tables > 0
    assert (deployed.weight_bytes or 0) == pytest.approx(total - tables, rel=0.05)


def test_bfloat16_runs_where_it_is_asked_for_and_only_there(folders: Any) -> None:
    if "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no bfloat16")
    batch = texts(2, 8)
    session: Any = OpenVino(precision="bfloat16").open(folders["tiny_encoder"][1], "cpu")
    use = session.kernels(batch)
    assert session.deployed.precision == "bfloat16"
    assert any(name.startswith("FullyConnected bfloat16") for name in use.counts)
    difference = largest_difference(session, folders["tiny_encoder"][0], batch)
    assert LIMIT < difference < 0.2


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("fault", ["flipped", "short", "missing"])
def test_a_changed_file_is_refused(file: str, fault: str, folders: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(folders["tiny_classifier"][1], folder)
    data = bytearray((folder / file).read_bytes())
    if fault == "flipped":
        data[len(data) // 2] ^= 1
        (folder / file).write_bytes(data)
    elif fault == "short":
        (folder / file).write_bytes(data[: len(data) // 2])
    else:
        (folder / file).unlink()
    with pytest.raises(ModelError, match="Export the candidate again"):
        OpenVino().open(folder, "cpu")


def test_a_graph_that_the_engine_cant_read_is_a_model_error(folders: Any, tmp_path: Path) -> None:
    import hashlib

    folder = tmp_path / "copy"
    shutil.copytree(folders["tiny_classifier"][1], folder)
    broken = b"<net/>"
    (folder / FILES[0]).write_bytes(broken)
    about = json.loads((folder / "openvino_model.json").read_text())
    about["sha256"][FILES[0]] = hashlib.sha256(broken).hexdigest()
    (folder / "openvino_model.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="can't read or compile"):
        OpenVino().open(folder, "cpu")


def test_the_model_itself_stays_as_it_was() -> None:
    handle = tiny_classifier()
    handle.model.bfloat16().train()
    before = {name: tensor.clone() for name, tensor in handle.model.state_dict().items()}
    session: Any = OpenVino().prepare(handle, "cpu")
    assert handle.model.training
    assert handle.model.dtype == torch.bfloat16
    assert all(torch.equal(before[name], tensor) for name, tensor in handle.model.state_dict().items())
    handle.model.eval().float()
    assert largest_difference(session, handle, texts(1, 9)) < LIMIT


def test_int8_without_calibration_samples_is_refused_with_the_reason() -> None:
    pytest.importorskip("nncf", reason="NNCF isn't installed (extra openvino)")
    with pytest.raises(UnsupportedError, match="calibration samples"):
        OpenVino(quantize="int8").prepare(tiny_classifier(), "cpu")


def test_an_ignored_name_that_nothing_has_is_refused() -> None:
    pytest.importorskip("nncf", reason="NNCF isn't installed (extra openvino)")
    with pytest.raises(UnsupportedError, match="no_such_layer"):
        OpenVino(quantize="int8-weights", ignore=("no_such_layer",)).prepare(tiny_classifier(), "cpu")


@pytest.mark.parametrize("quantize", ["int8", "int8-weights", "int4-weights"])
def test_a_quantized_classifier_is_smaller_runs_its_kernels_and_is_close(quantize: Any) -> None:
    pytest.importorskip("nncf", reason="NNCF isn't installed (extra openvino)")

    def draw(_: Calibration) -> CalibrationSet:
        return CalibrationSet([texts(1, 9), texts(4, 12)], "made", "train", "0", 5, 60, 0)

    handle = tiny_classifier().copy(Supplies(calibration=draw))
    session: Any = OpenVino(quantize=quantize, group_size=32).prepare(handle, "cpu")
    batch = texts(8, 12)
    use = session.kernels(batch)
    assert any(wanted in name for name in use.counts for wanted in use.wanted)
    assert use.fallbacks == ()
    in_products = sum(weights.nbytes for weights in handle.model.parameters() if weights.dim() == 2)
    assert (session.deployed.weight_bytes or 0) < in_products
    expected = TorchEager().prepare(handle, "cpu")(batch)
    error = (session(batch) - expected).norm() / expected.norm()
    assert 0 < error < 0.25
    assert ("calibration" in session.deployed.notes) == (quantize == "int8")


@pytest.mark.parametrize(
    "options",
    [
        {"num_streams": 2},
        {"activation_group": 32},
        {"hint": "throughput", "static_shapes": [[1, 8]]},
        {"quantize": "int3"},
        {"precision": "float8"},
        {"unknown": 1},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OpenVino(**options)


def test_facts_follow_the_options() -> None:
    assert facts_of(OpenVino()).is_exact
    assert facts_of(OpenVino()).requires == ("openvino",)
    assert not facts_of(OpenVino(precision="bfloat16")).is_exact
    assert facts_of(OpenVino(quantize="int8")).requires == ("openvino", "nncf")
    assert "speech-seq2seq" not in (facts_of(OpenVino()).heads or ())
    assert facts_of(OpenVino()).devices == {"cpu"}


def test_nothing_is_told_to_a_server(folders: Any) -> None:
    telemetry = pytest.importorskip("openvino_telemetry", reason="without it nothing is sent at all")
    assert folders["tiny_encoder"]  # exported by now
    fresh = telemetry.Telemetry(app_name="test", app_version="0", tid="none", enable_opt_in_dialog=False)
    assert fresh.consent is False
