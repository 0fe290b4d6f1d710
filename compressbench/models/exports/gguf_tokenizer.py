"""A byte-level BPE tokenizer as llama.cpp's `gpt2` model has it: tokens, their types, merges and special ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.errors import UnsupportedError

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_IGNORES_MERGES = "llama-bpe"
"""The one rule here by which llama.cpp takes a word that is a token as it is."""
_ELSE = "Export it to safetensors."


class Vocabulary(NamedTuple):
    """`splitting` is llama.cpp's name for how text is cut before the merges, `special` ids by bos, eos, unk and pad."""

    splitting: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: Mapping[str, int]
    adds_bos: bool
    chat_template: str | None


def vocabulary_of(handle: ModelHandle) -> Vocabulary:
    """Raises UnsupportedError for a tokenizer that llama.cpp's `gpt2` would read otherwise."""
    tokenizer: Any = handle.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedError("only fast byte-level BPE tokenizers are written as gguf", do=_ELSE)
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    if data["model"]["type"] != "BPE" or data["model"].get("byte_fallback") or data.get("normalizer"):
        raise UnsupportedError(
            "only byte-level BPE tokenizers without a normalizer are written as gguf",
            got=str(data["model"]["type"]),
            do=_ELSE,
        )
    splitting = _splitting(data.get("pre_tokenizer") or {})
    if bool(data["model"].get("ignore_merges")) != (splitting == _IGNORES_MERGES):
        raise UnsupportedError(f"llama.cpp merges tokens of '{splitting}' in another way", do=_ELSE)
    tokens, types = _tokens(data, handle.model.config.vocab_size)
    special = {name: getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "unk", "pad")}
    first, bos = tokenizer("a")["input_ids"][:1], special["bos"]
    return Vocabulary(
        splitting=splitting,
        tokens=tokens,
        types=types,
        merges=[each if isinstance(each, str) else " ".join(each) for each in data["model"]["merges"]],
        special={name: number for name, number in special.items() if number is not None},
        adds_bos=bos is not None and first == [bos],
        chat_template=template if isinstance(template := getattr(tokenizer, "chat_template", None), str) else None,
    )


def _tokens(data: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """By id; numbers that no token has, up to the model's vocabulary, are unused ones."""
    by_id = {number: (token, _NORMAL) for token, number in data["model"]["vocab"].items()}
    for each in data["added_tokens"]:
        by_id[each["id"]] = (each["content"], _CONTROL if each["special"] else _USER_DEFINED)
    if max(by_id) >= size:
        raise UnsupportedError("the tokenizer has more tokens than the model", got=f"{max(by_id) + 1} and {size}")
    found = [by_id.get(number, (f"[PAD{number}]", _UNUSED)) for number in range(size)]
    return [token for token, _ in found], [kind for _, kind in found]


def _splitting(rule: Mapping[str, Any]) -> str:
    """llama.cpp's name of the rule. Raises UnsupportedError for one that isn't GPT-2's or Llama 3's."""
    parts = rule["pretokenizers"] if rule.get("type") == "Sequence" else [rule]
    last = parts[-1]
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if len(parts) == 1 and last.get("use_regex", True):
            return "gpt-2"
        if len(parts) == 2 and not last.get("use_regex", True) and parts[0].get("pattern") == {"Regex": _LLAMA_3}:
            return _IGNORES_MERGES
    raise UnsupportedError(
        "llama.cpp has no such way of cutting text into words, or none that is known here",
        got=", ".join(str(each.get("type")) for each in parts),
        do=_ELSE,
    )
