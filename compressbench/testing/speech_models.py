"""A model of speech small enough to make on the spot: random weights, and a tokenizer of letters."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle

_END = "<|endoftext|>"
_SPECIAL = (
    "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>",
    "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip


def tiny_speech_processor() -> Any:
    """Features of one second at 16 kHz in 8 bands, and a tokenizer whose tokens are the small letters and the space."""
    from transformers import AddedToken, WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    letters = [*string.ascii_lowercase, "Ġ"]  # how byte-level tokenizers write a space
    tokenizer = WhisperTokenizer(vocab={letter: at for at, letter in enumerate(letters)}, merges=[], unk_token=_END)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    tokenizer.set_prefix_tokens()  # now that they are known
    features = WhisperFeatureExtractor(feature_size=8, chunk_length=1, sampling_rate=16_000)
    return WhisperProcessor(feature_extractor=features, tokenizer=tokenizer)


def tiny_speech_model(num_layers: int = 2, seed: int = 0) -> ModelHandle:
    """A randomly initialised Whisper (hidden size 64) for one second of sound and 48 tokens of text in a handle."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from compressbench.models.handle import ModelHandle
    from compressbench.records.record import ModelSource

    torch.manual_seed(seed)
    processor = tiny_speech_processor()
    start, end = (processor.tokenizer.convert_tokens_to_ids(token) for token in (_SPECIAL[0], _END))
    config = WhisperConfig(
        vocab_size=len(processor.tokenizer), num_mel_bins=8, d_model=64, encoder_layers=num_layers,
        decoder_layers=num_layers, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
        decoder_ffn_dim=128, max_source_positions=50, max_target_positions=48, decoder_start_token_id=start,
        bos_token_id=end, eos_token_id=end, pad_token_id=end, suppress_tokens=None, begin_suppress_tokens=None,
        init_std=0.2,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    source = ModelSource(id="testing:tiny", revision="random", architecture=type(model).__name__, dtype="float32")
    return ModelHandle(model, processor, source, "speech-seq2seq", "float32")
