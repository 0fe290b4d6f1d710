from __future__ import annotations

from pathlib import Path
from typing import Any

import jiwer
import pytest
import torch
from nontext_parts import tone, wav, write_sounds

from compressbench.core.errors import DataError, ModelError, NotFiniteError, UnsupportedError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.models.quiet import quiet
from compressbench.models.transcribing import transcribe
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks import speech_recognition
from compressbench.tasks.speech_recognition import SpeechRecognition
from compressbench.tasks.transcripts import prompt_of
from compressbench.testing import tiny_speech_model

SAID = ["the cat sat on the mat", "a dog", "very good", "home is not a mat", "the dog ran home"]
HEARD = ["the cat sat on a mat", "a dog", "", "home is a mat mat", "dog ran at home today"]
OPTIONS: dict[str, Any] = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split in ("test", "train"):
        write_sounds(folder / f"{split}.parquet", [tone(200 + 100 * at) for at in range(5)], SAID)
    return folder


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return tiny_speech_model()


def evaluate(task: SpeechRecognition, handle: ModelHandle) -> list[SampleRow]:
    session = TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, task.load(), SilentProgress(), Unwatched())


def hear(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    """Let the model write these texts, whatever it is given."""
    left = list(texts)

    def write(handle: ModelHandle, features: Any, *_: Any) -> list[list[int]]:
        now = [left.pop(0) for _ in features["input_features"]]
        return [handle.tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"] for text in now]

    monkeypatch.setattr(speech_recognition, "write", write)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_rate_is_jiwers_over_all_texts_together(
    data: Path, handle: ModelHandle, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    hear(monkeypatch, HEARD)
    task = SpeechRecognition(data=str(data), batch_size=batch_size, **OPTIONS)
    rows = evaluate(task, handle)
    assert [row.prediction for row in rows] == HEARD
    assert task.summarize(rows) == pytest.approx(jiwer.wer(SAID, HEARD), abs=1e-12)
    assert [row.weight for row in rows] == [len(text.split()) for text in SAID]
    assert [row.num_tokens for row in rows] == [len(text) for text in HEARD]  # its tokens are letters


def test_a_text_can_have_more_errors_than_words(
    data: Path, handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(monkeypatch, ["a b c d e f g h i j k l m n", *SAID[1:]])
    rows = evaluate(SpeechRecognition(data=str(data), **OPTIONS), handle)
    assert rows[0].score == 14 / 6
    assert [row.score for row in rows[1:]] == [0, 0, 0, 0]


def test_case_and_punctuation_count_unless_they_are_normalized(
    handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sounds(tmp_path / "test.parquet", [tone(300)], ["The CAT, sat!"])
    for normalizer, wanted in (("none", 1.0), ("basic", 0.0)):
        hear(monkeypatch, ["the cat sat"])
        task = SpeechRecognition(data=str(tmp_path), normalizer=normalizer, **OPTIONS)
        [row] = evaluate(task, handle)
        assert row.score == wanted


def test_english_is_normalized_with_the_tokenizers_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    british = tiny_speech_model()
    write_sounds(tmp_path / "test.parquet", [tone(300)], ["Mr. Grey doesn't mind the colour"])
    task = SpeechRecognition(data=str(tmp_path), normalizer="whisper-english", **OPTIONS)
    with pytest.raises(ModelError, match=r"no list of English spellings .*normalizer\.json"):
        task.check_model(british, task.load())
    british.tokenizer.tokenizer.english_spelling_normalizer = {"colour": "color", "grey": "gray"}
    task.check_model(british, task.load())
    hear(monkeypatch, ["mister gray does not mind the color"])
    [row] = evaluate(task, british)
    assert (row.score, row.prediction) == (0, "mister gray does not mind the color")


def test_a_reference_without_words_is_refused(handle: ModelHandle, tmp_path: Path) -> None:
    write_sounds(tmp_path / "test.parquet", [tone(300), tone(400)], ["the cat", "[noise]"])
    plain, basic = (SpeechRecognition(data=str(tmp_path), normalizer=each, **OPTIONS) for each in ("none", "basic"))
    plain.check_model(handle, plain.load())
    with pytest.raises(DataError, match="a reference has no words") as caught:
        basic.check_model(handle, basic.load())
    assert caught.value.where.endswith("sample 1")


def test_another_rate_than_the_models_is_refused(handle: ModelHandle, tmp_path: Path) -> None:
    import numpy as np

    write_sounds(tmp_path / "test.parquet", [wav(np.zeros(100, "<i2"), rate=44_100)], ["the cat"])
    task = SpeechRecognition(data=str(tmp_path), **OPTIONS)
    with pytest.raises(DataError, match=r"hears 16000 samples a second.*got 44100.*Resample"):
        task.check_model(handle, task.load())


def test_a_sound_longer_than_the_window_is_marked(
    handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sounds(tmp_path / "test.parquet", [tone(300, 1.0), tone(300, 1.01)], ["the cat", "a dog"])
    hear(monkeypatch, ["the cat", "a dog"])
    rows = evaluate(SpeechRecognition(data=str(tmp_path), **OPTIONS), handle)
    assert [row.is_truncated for row in rows] == [False, True]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_random_model_writes_the_likeliest_token_after_the_other(
    data: Path, handle: ModelHandle, batch_size: int
) -> None:
    rows = evaluate(SpeechRecognition(data=str(data), batch_size=batch_size, **OPTIONS), handle)
    assert [row.id for row in rows] == ["0", "1", "2", "3", "4"]
    for row, written in zip(rows, greedy(handle, 12), strict=True):
        text = handle.tokenizer.tokenizer.decode(written, skip_special_tokens=True)
        assert row.prediction == " ".join(text.split())
        assert row.num_tokens == len(written)


def features(handle: ModelHandle) -> torch.Tensor:
    from compressbench.data.audio import decode_wav

    sounds = [decode_wav(tone(200 + 100 * at), "here").samples for at in range(5)]
    found: torch.Tensor = handle.tokenizer.feature_extractor(sounds, sampling_rate=16_000, return_tensors="pt")[
        "input_features"
    ]
    return found


def greedy(handle: ModelHandle, count: int) -> list[list[int]]:
    """Token by token, each sound alone and without a cache."""
    prompt, end = prompt_of(handle, None), handle.model.config.eos_token_id
    found = []
    for sound in features(handle):
        ids = list(prompt)
        with torch.inference_mode():
            for _ in range(count):
                logits = handle.model(input_features=sound[None], decoder_input_ids=torch.tensor([ids])).logits
                ids.append(int(logits[0, -1].argmax()))
                if ids[-1] == end:
                    break
        found.append([token for token in ids[len(prompt) :] if token != end])
    return found


def test_transcripts_are_those_of_whispers_own_generation_where_nothing_is_forced() -> None:
    for seed in (0, 2):
        made = tiny_speech_model(seed=seed)
        prompt = made.tokenizer.tokenizer.prefix_tokens
        made.model.generation_config.no_timestamps_token_id = prompt[-1]
        batch = {"input_features": features(made)}
        with quiet(), torch.inference_mode():
            theirs = made.model.generate(**batch, do_sample=False, num_beams=1, max_new_tokens=12)
        ours = transcribe(made.model, batch, prompt, 12)
        end = made.model.config.eos_token_id
        assert ours == [row[: row.index(end)] if end in row else row for row in theirs.tolist()]


def test_tokens_that_the_model_never_writes_stay_unwritten_and_its_forced_ones_are_not_forced() -> None:
    made = tiny_speech_model()
    prompt, batch = made.tokenizer.tokenizer.prefix_tokens, {"input_features": features(made)}
    before = transcribe(made.model, batch, prompt, 6)
    favourite = before[0][0]
    made.model.generation_config.suppress_tokens = [favourite]
    assert favourite not in {token for row in transcribe(made.model, batch, prompt, 6) for token in row}
    made.model.generation_config.suppress_tokens = None
    made.model.generation_config.forced_decoder_ids = [(1, 3), (2, 4)]
    assert transcribe(made.model, batch, prompt, 6) == before
    assert made.model.generation_config.forced_decoder_ids == [(1, 3), (2, 4)], "the model's own is as it was"


def test_a_transcript_ends_at_the_models_end_token() -> None:
    made = tiny_speech_model()
    prompt, batch = made.tokenizer.tokenizer.prefix_tokens, {"input_features": features(made)}
    before = transcribe(made.model, batch, prompt, 12)
    third = before[0][2]
    made.model.generation_config.eos_token_id = third
    found = transcribe(made.model, batch, prompt, 12)
    assert found[0] == before[0][: before[0].index(third)]


def test_logits_that_are_no_numbers_are_no_transcript(data: Path) -> None:
    broken = tiny_speech_model()
    with torch.no_grad():
        broken.model.model.decoder.layer_norm.bias[0] = torch.nan
    with pytest.raises(NotFiniteError):
        evaluate(SpeechRecognition(data=str(data), **OPTIONS), broken)


def test_the_prompt_is_what_the_tokenizer_puts_before_a_text_in_that_language() -> None:
    made = tiny_speech_model()

    def names(language: str | None) -> list[str]:
        found: list[str] = made.tokenizer.tokenizer.convert_ids_to_tokens(prompt_of(made, language))
        return found

    assert names(None) == ["<|startoftranscript|>", "<|notimestamps|>"]
    assert names("de") == ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    assert names("German") == names("de")
    assert names(None) == ["<|startoftranscript|>", "<|notimestamps|>"], "and nothing of it stays"
    for unknown in ("klingon", "fr"):  # the second is no token of this tokenizer
        with pytest.raises(ModelError, match="doesn't know this language"):
            names(unknown)


def test_a_model_of_many_languages_must_be_told_which(data: Path) -> None:
    made = tiny_speech_model()
    made.model.generation_config.is_multilingual = True
    task = SpeechRecognition(data=str(data), **OPTIONS)
    with pytest.raises(ModelError, match="must be told which one"):
        task.check_model(made, task.load())
    told = SpeechRecognition(data=str(data), language="en", **OPTIONS)
    told.check_model(made, told.load())


def test_more_tokens_than_the_decoder_holds_are_refused(data: Path, handle: ModelHandle) -> None:
    task = SpeechRecognition(data=str(data), max_new_tokens=47)
    with pytest.raises(ModelError, match=r"at most 48 tokens.*got 49"):
        task.check_model(handle, task.load())
    fits = SpeechRecognition(data=str(data), max_new_tokens=46)
    fits.check_model(handle, fits.load())
    with pytest.raises(ModelError, match=r"at most 48 tokens.*got 49.*workload\.sequence_length"):
        fits.workload_batches(handle, fits.load(), 1, 49)


def test_a_workload_is_sounds_and_as_many_tokens_of_text_as_were_asked_for(data: Path, handle: ModelHandle) -> None:
    task = SpeechRecognition(data=str(data), **OPTIONS)
    batches = task.workload_batches(handle, task.load(), 2, 9)
    assert len(batches) == 2
    prompt = prompt_of(handle, None)
    for batch in batches:
        assert tuple(batch["decoder_input_ids"].shape) == (2, 9)
        assert batch["decoder_input_ids"][:, :2].tolist() == [prompt, prompt]
        assert TorchEager().prepare(handle, "cpu")(batch).shape == (2, 9, handle.model.config.vocab_size)


def test_nothing_trains_or_calibrates_on_sounds(data: Path, handle: ModelHandle) -> None:
    task = SpeechRecognition(data=str(data), **OPTIONS)
    with pytest.raises(DataError, match="no loss"):
        task.training_batches(handle, 4, None, 0)
    with pytest.raises(UnsupportedError, match="rows of tokens"):
        task.model_inputs(handle, "train")
