"""`speech-recognition`: what was said? Metric: word error rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compressbench.core.errors import DataError, UnsupportedError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.audio import Sound, audio_bytes, decode_wav
from compressbench.data.samples import Samples, load_samples
from compressbench.data.sources import Form
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import batches_in_order
from compressbench.tasks.from_data import FromData
from compressbench.tasks.spread import workload_samples
from compressbench.tasks.transcripts import prompt_of, require_length, write
from compressbench.tasks.word_errors import Normalizer, count_word_errors, normalizer_of, require_jiwer

if TYPE_CHECKING:
    import torch

_TOKENS_PER_SOUND = 1500
"""What an encoder of Whisper reads of half a minute, for a rough estimate of time."""


class SpeechRecognition(FromData):
    """Word errors over words of the references: substitutions, deletions and insertions, counted by jiwer.

    Version 1: greedy transcripts, each up to its own end or max_new_tokens, after the prompt that the tokenizer puts
    before a text (language, task and "no timestamps" of Whisper). Sounds must have the model's sampling rate, their
    channels are averaged, and what is longer than the model's window is cut. A sample's score is its errors over its
    words, its weight its words. Methods that quantize activations per batch see all sounds of a batch, so batch_size is
    part of the protocol.
    """

    version: ClassVar[int] = 1
    metric: ClassVar[str] = "wer"
    direction: ClassVar[Literal["higher", "lower"]] = "lower"
    head: ClassVar[str] = "speech-seq2seq"
    form: ClassVar[Form] = "samples"

    audio_column: str = Field("audio", description="the column of WAV files, such as the feature Audio makes")
    text_column: str = "text"
    language: str | None = Field(None, description="what is spoken, by the tokenizer's name of it, such as en")
    normalizer: Normalizer = Field("none", description="what is done to both texts before they are compared")
    max_new_tokens: int = Field(224, ge=1, le=100_000)
    limit: int | None = Field(None, ge=1, description="evaluate only the first so many samples")
    batch_size: int = Field(8, ge=1, le=65536)

    @property
    def protocol_id(self) -> str:
        options = f"language={self.language},normalizer={self.normalizer}"
        lengths = f"max_new_tokens={self.max_new_tokens},batch_size={self.batch_size}"
        return f"speech-recognition/v{self.version}:greedy,{options},{lengths}"

    def check(self, *, training: bool = False) -> None:
        require_jiwer()
        super().check(training=training)

    def load(self) -> Samples:
        return self._load(self.split, self.limit)

    def check_model(self, handle: ModelHandle, samples: Samples) -> None:
        normalize = normalizer_of(self.normalizer, handle.tokenizer.tokenizer)
        for id_, text in zip(samples.ids, samples.columns["text"], strict=True):
            if not normalize(text).split():
                raise DataError(
                    "a reference has no words, so that no rate of errors is defined",
                    where=f"{samples.source}, sample {id_}",
                    got=repr(text),
                    do="Drop these rows.",
                )
        num_tokens = len(prompt_of(handle, self.language)) + self.max_new_tokens
        require_length(handle, num_tokens, "Lower the task's max_new_tokens.")
        self._sounds(handle, samples, [0])

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Samples, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        prompt, normalize = prompt_of(handle, self.language), normalizer_of(self.normalizer, handle.tokenizer.tokenizer)
        rows: list[SampleRow] = []
        with progress.bar("evaluate", len(samples)) as bar:
            for indices in batches_in_order(len(samples), self.batch_size):
                sounds = self._sounds(handle, samples, indices)
                written = write(handle, _features(handle, sounds), prompt, self.max_new_tokens)
                for index, sound, tokens in zip(indices, sounds, written, strict=True):
                    text = handle.tokenizer.tokenizer.decode(tokens, skip_special_tokens=True)
                    row = _row(normalize(samples.columns["text"][index]), normalize(text), samples.ids[index])
                    is_cut = _is_longer_than_the_window(handle, sound)
                    rows.append(row.model_copy(update={"num_tokens": len(tokens), "is_truncated": is_cut}))
                bar.advance(len(indices))
        return rows

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        if self.is_on_hub:
            return None
        num_samples = len(self._load(self.train_split, None) if training else self.load())
        return num_samples, num_samples * _TOKENS_PER_SOUND

    def training_batches(self, handle: ModelHandle, batch_size: int, max_samples: int | None, seed: int) -> list[Batch]:
        raise DataError(
            "speech recognition has no loss to train on here", where=self.data, do="Leave out the steps that train."
        )

    def model_inputs(self, handle: ModelHandle, split: str) -> tuple[list[dict[str, Any]], str]:
        raise UnsupportedError("calibration samples are drawn as rows of tokens, and sounds have none")

    def workload_batches(
        self, handle: ModelHandle, samples: Samples, batch_size: int, sequence_length: int
    ) -> list[Batch]:
        """Sounds, and for the decoder the first `sequence_length` tokens of prompt and text, repeated where they end."""
        require_length(handle, sequence_length, "Lower workload.sequence_length.")
        chosen = workload_samples(len(samples), batch_size)
        return [self._workload(handle, samples, indices, sequence_length) for indices in chosen]

    def _workload(self, handle: ModelHandle, samples: Samples, indices: Sequence[int], length: int) -> Batch:
        import torch

        texts = [samples.columns["text"][index] for index in indices]
        prompt = prompt_of(handle, self.language)
        encoded = handle.tokenizer.tokenizer(texts, add_special_tokens=False)["input_ids"]
        ids = [[*prompt, *row] for row in encoded]
        repeated = [(row * (length // len(row) + 1))[:length] for row in ids]
        features = _features(handle, self._sounds(handle, samples, indices))
        return {**features, "decoder_input_ids": torch.tensor(repeated)}

    def _sounds(self, handle: ModelHandle, samples: Samples, indices: Sequence[int]) -> list[Sound]:
        wanted = handle.tokenizer.feature_extractor.sampling_rate
        sounds = []
        for index in indices:
            where = f"{samples.source}, sample {samples.ids[index]}"
            sound = decode_wav(samples.columns["audio"][index], where)
            if sound.rate != wanted:
                raise DataError(
                    f"the model hears {wanted} samples a second, and nothing is resampled here",
                    where=where,
                    got=f"{sound.rate}",
                    do=f"Resample the data, for example: ffmpeg -i IN -ac 1 -ar {wanted} OUT.wav.",
                )
            sounds.append(sound)
        return sounds

    def _load(self, split: str, limit: int | None) -> Samples:
        columns = {"audio": self.audio_column, "text": self.text_column}
        samples = load_samples(
            self.data, split=split, columns=columns, revision=self.revision, config=self.config, limit=limit
        )
        where = f"{samples.source}, column '{self.audio_column}'"
        samples.columns["audio"] = [
            audio_bytes(value, f"{where}, row {row}") for row, value in enumerate(samples.columns["audio"])
        ]
        return samples


def _row(target: str, prediction: str, id_: str) -> SampleRow:
    found = count_word_errors(target, prediction)
    return SampleRow(
        id=id_,
        prediction=prediction,
        target=target,
        score=found.num_errors / found.num_words,
        weight=found.num_words,
    )


def _features(handle: ModelHandle, sounds: Sequence[Sound]) -> dict[str, torch.Tensor]:
    extractor = handle.tokenizer.feature_extractor
    samples = [sound.samples for sound in sounds]
    return dict(extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt"))


def _is_longer_than_the_window(handle: ModelHandle, sound: Sound) -> bool:
    window = getattr(handle.tokenizer.feature_extractor, "n_samples", None)
    return window is not None and len(sound.samples) > window
