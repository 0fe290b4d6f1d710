"""Models small enough to make on the spot, with random weights, and a tokenizer of 19 words or what else they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle

_WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "cat", "dog", "sat", "ran", "on", "mat", "home", "good", "bad",
    "very", "not", "is", "was",
)  # fmt: skip


def tiny_tokenizer() -> Any:
    """A word-level tokenizer of 19 words with [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **special)


def tiny_classifier(num_labels: int = 3, num_layers: int = 2, seed: int = 0) -> ModelHandle:
    """A randomly initialised BERT classifier (hidden size 64) in a handle."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(_WORDS), hidden_size=64, num_hidden_layers=num_layers, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64, num_labels=num_labels,
    )  # fmt: skip
    return _handle(BertForSequenceClassification(config).eval(), "sequence-classification")


def tiny_causal_lm(num_layers: int = 3, tied: bool = True, seed: int = 0) -> ModelHandle:
    """A randomly initialised Llama (hidden size 64, grouped-query attention) in a handle."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(_WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=num_layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied,
        bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return _handle(LlamaForCausalLM(config).eval(), "causal-lm")


def tiny_encoder(num_layers: int = 2, seed: int = 0) -> ModelHandle:
    """A randomly initialised BERT encoder (hidden size 64) without its pooler in a handle."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(_WORDS), hidden_size=64, num_hidden_layers=num_layers, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64,
    )  # fmt: skip
    return _handle(BertModel(config, add_pooling_layer=False).eval(), "feature-extraction")


def tiny_image_classifier(
    num_labels: int = 3, num_channels: int = 3, num_layers: int = 2, seed: int = 0
) -> ModelHandle:
    """A randomly initialised ViT (hidden size 64) for pictures of 16 x 16 in a handle, with an image processor."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=64, num_hidden_layers=num_layers, num_attention_heads=4, intermediate_size=128, image_size=16,
        patch_size=4, num_channels=num_channels, num_labels=num_labels, initializer_range=0.1,
    )  # fmt: skip
    half = [0.5] * num_channels
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=half, image_std=half)
    return _handle(ViTForImageClassification(config).eval(), "image-classification", processor)


def _handle(model: Any, head: str, processor: Any = None) -> ModelHandle:
    from compressbench.models.handle import ModelHandle
    from compressbench.records.record import ModelSource

    architecture = type(model).__name__
    source = ModelSource(id="testing:tiny", revision="random", architecture=architecture, dtype="float32")
    return ModelHandle(model, processor or tiny_tokenizer(), source, head, "float32")
