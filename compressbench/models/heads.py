"""What a model can be asked for: a table of heads, how transformers loads each, and what turns samples into its inputs.

Nothing heavy is imported before a model is loaded, because plans look here too.
"""

from __future__ import annotations

import inspect
import json
from typing import Any, NamedTuple

from compressbench.core.errors import MissingDependencyError
from compressbench.core.registry import missing_distributions
from compressbench.core.spec import content_hash


class Head(NamedTuple):
    """`auto_class` and `processor` are automatic classes of transformers: of the model, and of its tokenizer, image
    processor, or both of a sound's features and a tokenizer; "" where they are ours. `endings` are those of the
    architectures that have the head, `extra` the optional dependencies of its processor (an extra, and the distribution
    that must be there).

    `reads_tokens` says that an input is a row of token ids, `is_trained_on` that a labelled sample has a loss here.
    """

    auto_class: str
    endings: tuple[str, ...]
    processor: str = "AutoTokenizer"
    extra: tuple[str, str] | None = None
    reads_tokens: bool = True
    is_trained_on: bool = True


HEADS = {
    "sequence-classification": Head("AutoModelForSequenceClassification", ("ForSequenceClassification",)),
    "causal-lm": Head("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel")),
    # a model for masked words has a whole encoder, and all that is left out was never part of a sentence's vector
    "feature-extraction": Head("AutoModel", ("Model", "ForMaskedLM"), is_trained_on=False),
    "image-classification": Head(
        "AutoModelForImageClassification",
        ("ForImageClassification", "ForImageClassificationWithTeacher"),
        processor="AutoImageProcessor",
        extra=("vision", "pillow"),
        reads_tokens=False,
    ),
    "speech-seq2seq": Head(
        "AutoModelForSpeechSeq2Seq",
        ("ForConditionalGeneration", "SpeechEncoderDecoderModel"),
        processor="AutoProcessor",
        reads_tokens=False,
        is_trained_on=False,
    ),
    "click-prediction": Head("", ("ForClickPrediction",), processor="", reads_tokens=False),
}


def automatic_class(head: str) -> Any:
    """What loads a model with this head: `from_pretrained` and `from_config`."""
    import transformers

    if head == "click-prediction":
        from compressbench.models.dlrm import register

        return register()
    return _Encoders if head == "feature-extraction" else getattr(transformers, HEADS[head].auto_class)


def load_processor(head: str, where: str, **options: Any) -> Any:
    """What turns samples into inputs for a model in `where`. Raises MissingDependencyError with the extra it needs."""
    import transformers

    found = HEADS[head]
    if found.extra is not None and missing_distributions(found.extra[1:]):
        extra, distribution = found.extra
        raise MissingDependencyError(
            f"a model for {head} needs {distribution}", do=f'Install it: pip install "compressbench[{extra}]".'
        )
    if found.processor == "AutoImageProcessor":
        # torchvision resizes otherwise, and a score must not depend on whether it is installed
        options["backend"] = "pil"
    if head == "click-prediction":
        from compressbench.models.click_features import ClickFeatures

        return ClickFeatures.from_pretrained(where, **options)
    return getattr(transformers, found.processor).from_pretrained(where, **options)


def processor_id(processor: Any) -> str:
    """Class and hash of what turns samples into inputs: of a tokenizer's vocabulary, of the settings of anything else."""
    inner = [getattr(processor, name, None) for name in ("image_processor", "feature_extractor", "tokenizer")]
    return "+".join(_id_of(part) for part in [part for part in inner if part is not None] or [processor])


def _id_of(part: Any) -> str:
    name = type(part).__name__
    if hasattr(part, "get_vocab"):
        vocabulary = part.get_vocab()
        return f"{name}-{len(vocabulary)}-{content_hash(vocabulary)[:8]}"
    return f"{name}-{content_hash(json.loads(part.to_json_string()))[:8]}"


class _Encoders:
    """Encoders without the pooler that some have above their last hidden states: no sentence vector reads it.

    Few checkpoints hold one that was trained, and it would be stored and run for nothing.
    """

    @staticmethod
    def from_pretrained(where: Any, **options: Any) -> Any:
        from transformers import AutoModel

        found = AutoModel.from_pretrained(where, **options)
        if not options.get("output_loading_info"):
            return _without_pooler(found)
        model, info = found
        if hasattr(_without_pooler(model), "pooler") and model.pooler is None:
            info["missing_keys"] = {key for key in info["missing_keys"] if not key.startswith("pooler.")}
        return model, info

    @staticmethod
    def from_config(config: Any) -> Any:
        from transformers import AutoModel

        return _without_pooler(AutoModel.from_config(config))


def _without_pooler(model: Any) -> Any:
    if "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        model.pooler = None
    return model
