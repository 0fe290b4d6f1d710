"""Task files of lm-evaluation-harness on a few documents of their own, and a model that can read them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from compressbench.models.handle import ModelHandle
from compressbench.testing import tiny_causal_lm

SENTENCES = [
    "the cat sat on the mat",
    "a dog ran home",
    "the mat is very good",
    "a cat is not bad",
    "the dog was on a mat",
]

KINDS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": ["good", "very bad", "home"],
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "mcc", "brier_score")],
        "metadata": {"version": 2.0},
    },
    "pair": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": ["good", "bad"],
        "doc_to_target": "{{label % 2}}",
        "metric_list": [
            {"metric": "f1", "aggregation": "f1", "higher_is_better": True},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "last-word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' '+text.split(' ')[-1]}}",
        "target_delimiter": "",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["home"], "do_sample": False, "max_gen_toks": 6},
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "regexes_to_ignore": [","]}
        ],
        "filter_list": [
            {"name": "whole", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]},
            {"name": "first", "filter": [{"function": "regex", "regex_pattern": r"(\w+)"}, {"function": "take_first"}]},
        ],
    },
}  # fmt: skip


def write_task(folder: Path, kind: str, rows: Sequence[Mapping[str, Any]] | None = None, **changes: Any) -> str:
    """A task file with its data; its name is the kind's."""
    documents = rows or [{"text": text, "label": at % 3, "answer": "cat"} for at, text in enumerate(SENTENCES)]
    data = folder / f"{kind}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in documents))
    where = {
        "task": kind,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
    }
    (folder / f"{kind}.yaml").write_text(yaml.safe_dump({**where, **KINDS[kind], **changes}))
    return str(folder)


def reader() -> ModelHandle:
    """A tiny model that prefers some words to others, and a tokenizer that adds nothing to a text but knows where one
    begins and ends.
    """
    from tokenizers.processors import TemplateProcessing

    handle = tiny_causal_lm(num_layers=2, tied=False)
    with torch.no_grad():
        for parameter in handle.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
    handle.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    handle.tokenizer.add_special_tokens({"bos_token": "[CLS]", "eos_token": "[SEP]"})
    return dataclasses.replace(handle)
