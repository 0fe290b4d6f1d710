"""One tiny random model of every architecture family, with the inputs that it takes and the class that loads it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.protocols import Batch
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.records.record import ModelSource
from compressbench.testing import tiny_tokenizer

NUM_LABELS = 3
VOCABULARY = 19
_PAD, _BEGIN, _END = 0, 2, 3
_FRAMES = 20  # of sound; the encoder of Whisper halves them


@dataclass(frozen=True)
class Architecture:
    """A family: the names of its classes in transformers, the options of its configuration, and what it reads."""

    model: str
    config: str
    options: dict[str, Any]
    head: str
    auto_class: str
    inputs: Callable[[torch.Generator, int], dict[str, torch.Tensor]]
    labels: Callable[[torch.Generator, Batch], torch.Tensor]

    def build(self, seed: int = 0) -> ModelHandle:
        """The model with random weights, in a handle that supplies calibration samples, training data and a teacher."""
        torch.manual_seed(seed)
        config = getattr(transformers, self.config)(**self.options)
        model = getattr(transformers, self.model)(config).eval()
        source = ModelSource(id=f"testing:{self.model}", revision="random", architecture=self.model, dtype="float32")
        return ModelHandle(model, tiny_tokenizer(), source, self.head, "float32", supplies=Supplies(**self._data()))

    def batches(self, seed: int = 0, count: int = 2, rows: int = 4) -> list[Batch]:
        """Model inputs without labels; where there is an attention mask, the first row is padded."""
        generator = torch.Generator().manual_seed(seed)
        return [self.inputs(generator, rows) for _ in range(count)]

    def lessons(self) -> list[Batch]:
        """The same inputs with labels, those of texts from the texts and others at random."""
        generator = torch.Generator().manual_seed(0)
        return [{**batch, "labels": self.labels(generator, batch)} for batch in self.batches()]

    def logits(self, model: Any) -> torch.Tensor:
        """Of `batch_for` (rows x classes), padding left out."""
        batch = self.batch_for(model)
        with torch.inference_mode():
            found: torch.Tensor = model(**batch).logits.float()
        mask = batch.get("decoder_attention_mask", batch.get("attention_mask"))
        return found if mask is None or found.dim() == 2 else found[mask.bool()]

    def batch_for(self, model: Any) -> Batch:
        """A batch that is not among the samples for calibration, sounds and images in the model's own dtype."""
        (batch,) = self.batches(seed=7, count=1)
        return {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in batch.items()}

    def _data(self) -> dict[str, Any]:
        def calibration(_: Calibration) -> CalibrationSet:
            return CalibrationSet(self.batches(), "made", "train", "0", 8, 80, 0)

        def training(_batch_size: int, _max_samples: int | None, _seed: int) -> Sequence[Batch]:
            return self.lessons()

        return {"calibration": calibration, "training_batches": training, "teacher": lambda: self.build(seed=1)}


def _texts(generator: torch.Generator, rows: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(4, VOCABULARY, (rows, 12), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    return {"input_ids": ids.where(mask == 1, _PAD), "attention_mask": mask}


def _images(generator: torch.Generator, rows: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}


def _speech(generator: torch.Generator, rows: int) -> dict[str, torch.Tensor]:
    text = _texts(generator, rows)
    return {
        "input_features": torch.randn(rows, 8, _FRAMES, generator=generator),
        "decoder_input_ids": text["input_ids"],
        "decoder_attention_mask": text["attention_mask"],
    }


def _classes(generator: torch.Generator, batch: Batch) -> torch.Tensor:
    rows = len(next(iter(batch.values())))
    return torch.randint(0, NUM_LABELS, (rows,), generator=generator)


def _tokens(_: torch.Generator, batch: Batch) -> torch.Tensor:
    return batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)  # type: ignore[no-any-return]


def _next_tokens(_: torch.Generator, batch: Batch) -> torch.Tensor:
    """Of a decoder that reads its labels shifted to the right: position t predicts label t."""
    following = torch.full_like(batch["decoder_input_ids"], _END)
    following[:, :-1] = batch["decoder_input_ids"][:, 1:]
    return following.masked_fill(batch["decoder_attention_mask"] == 0, -100)


_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": _PAD, "bos_token_id": _BEGIN, "eos_token_id": _END}
_POSITIONS = {"max_position_embeddings": 64}
_LABELS = {"num_labels": NUM_LABELS}
_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_RANGE = {"initializer_range": 0.1}
_DECODER = {**_TOKENS, **_SIZES, **_POSITIONS, **_RANGE, "num_key_value_heads": 2}
_ENCODER = {**_TOKENS, **_SIZES, **_POSITIONS, **_LABELS, **_RANGE}


def _encoder(name: str, options: dict[str, Any]) -> Architecture:
    return Architecture(
        f"{name}ForSequenceClassification", f"{name}Config", options, "sequence-classification",
        "AutoModelForSequenceClassification", _texts, _classes,
    )  # fmt: skip


def _decoder(name: str, options: dict[str, Any], *, tied: bool, ending: str = "ForCausalLM") -> Architecture:
    options = {**options, "tie_word_embeddings": tied}
    return Architecture(
        f"{name}{ending}", f"{name}Config", options, "causal-lm", "AutoModelForCausalLM", _texts, _tokens
    )


def _images_in(name: str, options: dict[str, Any]) -> Architecture:
    return Architecture(
        f"{name}ForImageClassification", f"{name}Config", options, "image-classification",
        "AutoModelForImageClassification", _images, _classes,
    )  # fmt: skip


_DISTILBERT = {
    **_TOKENS, **_POSITIONS, **_LABELS, **_RANGE, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128,
}  # fmt: skip
_GPT2 = {**_TOKENS, **_RANGE, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4}
_VIT = {**_SIZES, **_LABELS, **_RANGE, "image_size": 16, "patch_size": 4}
_WHISPER = {
    **_TOKENS, "decoder_start_token_id": _BEGIN, "d_model": 64, "init_std": 0.1, "num_mel_bins": 8,
    "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "max_source_positions": _FRAMES // 2,
    "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 128, "max_target_positions": 32,
}  # fmt: skip

_SWIN = {
    **_LABELS, **_RANGE, "image_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 64, "depths": [1, 1],
    "num_heads": [2, 4],
}  # fmt: skip

FAMILIES: dict[str, Architecture] = {
    "bert": _encoder("Bert", _ENCODER),
    "roberta": _encoder("Roberta", _ENCODER),
    "distilbert": _encoder("DistilBert", _DISTILBERT),
    "electra": _encoder("Electra", {**_ENCODER, "embedding_size": 128}),
    "gpt2": _decoder("GPT2", _GPT2, tied=True, ending="LMHeadModel"),
    "llama-tied": _decoder("Llama", _DECODER, tied=True),
    "llama-untied": _decoder("Llama", _DECODER, tied=False),
    "qwen2": _decoder("Qwen2", _DECODER, tied=True),
    "qwen3": _decoder("Qwen3", {**_DECODER, "head_dim": 32}, tied=True),
    "mistral": _decoder("Mistral", {**_DECODER, "sliding_window": 8}, tied=False),
    "vit": _images_in("ViT", _VIT),
    "whisper": Architecture(
        "WhisperForConditionalGeneration", "WhisperConfig", _WHISPER, "speech-recognition",
        "AutoModelForSpeechSeq2Seq", _speech, _next_tokens,
    ),
}  # fmt: skip
"""The families that compressbench names."""

ODD: dict[str, Architecture] = {
    "albert": _encoder("Albert", {**_ENCODER, "embedding_size": 64}),
    "modernbert": _encoder("ModernBert", {**_ENCODER, "cls_token_id": _BEGIN, "sep_token_id": _END}),
    "swin": _images_in("Swin", _SWIN),
}
"""Others, of a structure that none of those has: one layer used twice, a first layer unlike the rest, layers of
different widths.
"""
