"""What was deployed, in words: engine, files, stages, and how far its answers are from those of the model in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

from compressbench.core.units import humanize, three_digits
from compressbench.records.deployment import Deployment, Parity


def deployment_words(found: Deployment) -> Iterator[tuple[str, str]]:
    yield "engine", f"{found.engine}, computes in {found.precision}"
    if found.num_files_bytes is not None:
        yield "exported", f"{humanize(found.num_files_bytes, 'B')}, SHA-256 {found.sha256 or 'unknown'}"
    if found.seconds:
        stages = (f"{name.removesuffix('_s')} {humanize(value, 's')}" for name, value in found.seconds.items())
        yield "made ready in", ", ".join(stages)
    for name, value in found.notes.items():
        yield name.replace("_", " "), str(value)
    if found.to_torch is not None:
        yield "parity", parity_text(found.to_torch)
    if found.fresh is not None:
        yield "fresh process", parity_text(found.fresh.parity)
    if found.not_compared:
        yield "parity", f"not compared: {found.not_compared}"


def parity_text(parity: Parity) -> str:
    """One sentence with every number that there is, and what exceeds its limit."""
    parts = [f"differs from {parity.reference} by at most {three_digits_or_less(parity.max_difference)}"]
    if parity.mean_kl is not None:
        parts.append(f"mean KL {three_digits_or_less(parity.mean_kl)} nats")
    if parity.top1_agreement is not None:
        parts.append(f"same largest logit in {100 * parity.top1_agreement:.4g} % of {parity.num_rows} rows")
    if parity.min_cosine is not None:
        parts.append(f"smallest cosine of {parity.num_rows} vectors {parity.min_cosine:.6f}")
    if parity.num_texts:
        parts.append(f"{parity.num_equal_texts} of {parity.num_texts} greedy texts the same")
    if parity.broken:
        parts.append("BEYOND ITS LIMITS: " + "; ".join(parity.broken))
    return ", ".join(parts)


def three_digits_or_less(value: float) -> str:
    """Differences may be as small as rounding is: then in exponent form.

    >>> three_digits_or_less(0.0), three_digits_or_less(2.34e-7), three_digits_or_less(0.125)
    ('0', '2.3e-07', '0.125')
    """
    return "0" if value == 0 else f"{value:.2g}" if abs(value) < 1e-3 else three_digits(value)
