"""Texts from a language model in PyTorch, each up to its own end, greedy or sampled.

A sampled text depends on the seed, its prompt and its number among the samples of that prompt, never on what else is in
the batch nor on torch's global generator: every position has one uniform number, which picks from the model's
distribution (inverse transform). A baseline and its candidates so see the same draws, and two equal models write the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import NotFiniteError, UnsupportedError
from compressbench.core.protocols import Decoding, Written
from compressbench.models.own_generation import ids_of, only

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel


def write(model: PreTrainedModel, tokenizer: Any, inputs: Mapping[str, Any], decoding: Decoding) -> list[Written]:
    """`num_samples` texts for each prompt of `inputs` (padded on the left), those of one prompt next to each other.

    Of the model's own generation_config only the special tokens count: penalties or forced tokens would decide a text
    that the model's weights should. Raises NotFiniteError if a logit is no number.
    """
    import torch

    mask = inputs["attention_mask"]
    if not bool(mask[:, -1].all()):
        raise ValueError("prompts are padded on the left, so that they all end where the writing begins")
    prompts = [ids[kept.bool()].tolist() for ids, kept in zip(inputs["input_ids"].cpu(), mask.cpu(), strict=True)]
    repeated = {name: tensor.repeat_interleave(decoding.num_samples, dim=0) for name, tensor in inputs.items()}
    config = _config(model, tokenizer, decoding.max_new_tokens)
    choose = _Choose(decoding, prompts, model.device)
    stop = StopStrings(tokenizer, decoding.until, mask.shape[1])
    with torch.inference_mode(), only(model, config):
        whole = model.generate(
            **repeated, generation_config=config, logits_processor=[choose], stopping_criteria=[stop] if stop else None
        )
    choose.raise_if_broken()
    written = whole[:, mask.shape[1] :].tolist()
    return [up_to_the_end(row, stop.ends.get(at), ids_of(config.eos_token_id)) for at, row in enumerate(written)]


def up_to_the_end(tokens: list[int], stopped_at: int | None, eos: Sequence[int]) -> Written:
    """Without the padding that a batch has after the end of its shorter texts."""
    lengths = [at + 1 for at, token in enumerate(tokens) if token in eos][:1]
    lengths += [] if stopped_at is None else [stopped_at]
    return Written(tokens[: min(lengths, default=None)], bool(lengths))


def _config(model: PreTrainedModel, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    from transformers import GenerationConfig

    its_own = model.generation_config
    eos = ids_of(getattr(its_own, "eos_token_id", None)) or ids_of(getattr(tokenizer, "eos_token_id", None))
    pad = (
        ids_of(getattr(its_own, "pad_token_id", None)) or ids_of(getattr(tokenizer, "pad_token_id", None)) or eos or [0]
    )
    return GenerationConfig(
        bos_token_id=getattr(its_own, "bos_token_id", None),
        eos_token_id=eos or None,
        pad_token_id=pad[0],
        do_sample=False,
        use_cache=True,
        max_new_tokens=max_new_tokens,
    )


class _Choose:
    """Leaves the logits of greedy decoding alone; else leaves one token possible, the drawn one.

    It has the members of transformers' LogitsProcessor.
    """

    def __init__(self, decoding: Decoding, prompts: Sequence[Sequence[int]], device: Any) -> None:
        import torch

        self._decoding, self._step = decoding, 0
        self._is_broken = torch.zeros((), dtype=torch.bool, device=device)
        if decoding.temperature:
            self._uniform = uniform_numbers(decoding, prompts).to(device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        self._is_broken |= (scores.isnan() | scores.isposinf()).any()
        if not self._decoding.temperature:
            return scores
        chosen = sample(scores, self._uniform[:, self._step], self._decoding)
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def raise_if_broken(self) -> None:
        if bool(self._is_broken):
            raise NotFiniteError("the model gave logits that are not finite", do="Try bfloat16 or a milder setting.")


def uniform_numbers(decoding: Decoding, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Numbers from [0, 1) for every text of every prompt: (prompts * num_samples) x max_new_tokens, float64."""
    import torch

    return torch.stack([_uniform(decoding, prompt, at) for prompt in prompts for at in range(decoding.num_samples)])


def _uniform(decoding: Decoding, prompt: Sequence[int], number: int) -> torch.Tensor:
    """A number from [0, 1) for every position of the `number`-th text after this prompt (float64)."""
    import torch

    digest = hashlib.sha256(repr((decoding.seed, list(prompt), number)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(decoding.max_new_tokens, generator=generator, dtype=torch.float64)


def sample(logits: torch.Tensor, uniform: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """A token per row of `logits` (batch x vocabulary) from softmax(logits / temperature), by `uniform` (batch) numbers.

    Of the likeliest `top_k` tokens, the fewest whose probabilities (over these) reach `top_p` can be drawn: in this
    order, as transformers has it. Nucleus sampling is Holtzman et al. 2020 (arXiv:1904.09751).
    """
    top, tokens = logits.double().topk(min(decoding.top_k or logits.shape[-1], logits.shape[-1]), dim=-1)
    probabilities = (top / decoding.temperature).softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    kept = probabilities.masked_fill(before >= decoding.top_p, 0.0)
    upto = kept.cumsum(dim=-1)
    at = (upto <= uniform[:, None] * upto[:, -1:]).sum(dim=-1)
    last = (kept > 0).sum(dim=-1).sub(1).clamp(min=0)  # rounding must not reach past what can be drawn
    return tokens.gather(1, at.minimum(last)[:, None])[:, 0]


class StopStrings:
    """Ends a text when one of the strings stands in it, and remembers how many tokens it had.

    Only as many tokens are decoded as can hold a string, and one more, whose leading space a tokenizer may drop. It has
    the members of transformers' StoppingCriteria.
    """

    def __init__(self, tokenizer: Any, strings: Sequence[str], prompt_length: int) -> None:
        if strings and tokenizer is None:
            raise UnsupportedError("stop strings need a tokenizer, and this session has none")
        self._tokenizer, self._strings, self._prompt_length = tokenizer, strings, prompt_length
        self._window = max((len(string.encode()) for string in strings), default=0) + 1
        self.ends: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._strings)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        import torch

        count = input_ids.shape[1] - self._prompt_length
        tail = input_ids[:, -min(self._window, count) :].tolist()
        going = [at for at in range(len(tail)) if at not in self.ends]
        texts = self._tokenizer.batch_decode([tail[at] for at in going], clean_up_tokenization_spaces=False)
        self.ends |= {at: count for at, text in zip(going, texts, strict=True) if self._is_in(text)}
        return torch.tensor([at in self.ends for at in range(len(tail))], device=input_ids.device)

    def _is_in(self, text: str) -> bool:
        return any(string in text for string in self._strings)
