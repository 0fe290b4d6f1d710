"""A BERT sentence encoder with a classification head, as one Hugging Face model.

Sentence vector = mean of the last hidden states over the unmasked tokens, scaled to length 1; logits = a linear map of it.
Encoder and pooling are those of sentence-transformers/all-MiniLM-L6-v2 (Reimers and Gurevych, "Sentence-BERT", 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple, logging

from compressbench.core.errors import ModelError

NORM_EPS = 1e-12


class MeanPoolConfig(BertConfig):  # type: ignore[misc]  # transformers ships no types
    """BertConfig under its own model type, so that the automatic classes find the pooling too."""

    model_type = "mean-pool-bert"


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Unit sentence vectors, float32, shape (batch, hidden), of `hidden` (batch, length, hidden).

    `attention_mask` (batch, length) is 1 for tokens and 0 for padding. A row without any token gives zeros.
    """
    weights = attention_mask.to(torch.float32).unsqueeze(-1)
    total = (hidden.to(torch.float32) * weights).sum(dim=1)
    return nn.functional.normalize(total / weights.sum(dim=1).clamp(min=1e-9), dim=-1, eps=NORM_EPS)


class MeanPoolForSequenceClassification(BertPreTrainedModel):  # type: ignore[misc]
    """BERT without its pooler, mean pooling, unit length, one linear layer."""

    config_class = MeanPoolConfig
    accepts_loss_kwargs = False  # the loss is a mean over this batch, whatever the trainer accumulates

    def __init__(self, config: MeanPoolConfig) -> None:
        super().__init__(config)
        self.num_labels: int = config.num_labels
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (batch, num_labels) in the encoder's dtype; with `labels` (batch,) also the mean cross-entropy in nats.

        `input_ids`, `attention_mask` and `token_type_ids` have the shape (batch, length).
        """
        encoded = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        hidden = encoded.last_hidden_state
        mask = torch.ones(hidden.shape[:2], device=hidden.device) if attention_mask is None else attention_mask
        logits = self.classifier(mean_pool(hidden, mask).to(hidden.dtype))
        loss = None if labels is None else nn.functional.cross_entropy(logits.to(torch.float32), labels.view(-1))
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


def register() -> None:
    """Make AutoConfig and AutoModelForSequenceClassification know the model. Calling it again changes nothing."""
    AutoConfig.register(MeanPoolConfig.model_type, MeanPoolConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(MeanPoolConfig, MeanPoolForSequenceClassification, exist_ok=True)


def build(encoder_folder: str | Path, head_folder: str | Path) -> MeanPoolForSequenceClassification:
    """The float32 model, in evaluation mode, of an encoder's weights and a trained head. Reads local files only.

    `encoder_folder` holds `model.safetensors` of a BERT encoder; `head_folder` holds `config.json` and
    `head.safetensors`, whose tensors carry this model's names and win over the encoder's. The encoder's pooler is
    not used. Raises ModelError for a file that is missing or broken and for weights that don't fit the config.
    """
    encoder_file, head_file = Path(encoder_folder) / "model.safetensors", Path(head_folder) / "head.safetensors"
    config = _read_config(Path(head_folder) / "config.json")
    tensors = {f"bert.{name}": value for name, value in _read_tensors(encoder_file).items()} | _read_tensors(head_file)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in MeanPoolForSequenceClassification(config).state_dict().items()}
    kept = {name: value.to(torch.float32) for name, value in tensors.items() if name in shapes}
    for name, shape in shapes.items():
        if name not in kept or kept[name].shape != shape:
            raise ModelError(
                f"{name} has to have the shape {list(shape)}",
                where=str(head_file if name.startswith("classifier.") else encoder_file),
                got=str(list(kept[name].shape)) if name in kept else "no such tensor",
                do="Use the encoder that the head was trained for.",
            )
    with _no_progress_bar():
        model: MeanPoolForSequenceClassification = MeanPoolForSequenceClassification.from_pretrained(
            None, config=config, state_dict=kept
        )
    model.eval()
    return model


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """No 'Loading weights' bar for something that takes a tenth of a second; the user's setting is put back."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError("the weights are not there", where=str(path), do="Give the folder that holds this file.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"not a safetensors file: {error}", where=str(path), do="Get the file again.") from error


def _read_config(path: Path) -> MeanPoolConfig:
    if not path.is_file():
        raise ModelError("the config is not there", where=str(path), do="Give the folder that holds this file.")
    try:
        config: MeanPoolConfig = MeanPoolConfig.from_json_file(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"not a model config: {error}", where=str(path), do="Get the file again.") from error
    return config
