"""What one record says of its scores beyond their values, in words: what else changed, and how that is known."""

from __future__ import annotations

from collections.abc import Iterator

from compressbench.records.score import Fidelity, Score


def score_facts(score: Score) -> Iterator[tuple[str, str]]:
    """Pairs of a short name and a sentence."""
    name = score.label or score.task
    if score.stratum or score.margin:
        margin = "no margin declared" if score.margin is None else f"margin {score.margin:g}"
        yield "declared", f"{name}: {margin}" + (f", stratum {score.stratum}" if score.stratum else "")
    if score.paired is not None:
        yield "paired", f"{name}: {_paired(score)}"
    if score.fidelity is not None:
        yield "fidelity", f"{name}: {', '.join(_fidelity(score.fidelity))}"
    if score.floor is not None:
        floor = score.floor.paired
        changed = f"{floor.num_harmful} lost, {floor.num_beneficial} won of {floor.num_samples}"
        yield "noise floor", f"{name}: the baseline asked again ({score.floor.how}): {changed}"
    if score.calibration_error is not None:
        yield "calibration", f"{name}: expected calibration error {100 * score.calibration_error:.2f} %"
    if score.draws:
        yield "draws", f"{name}: " + ", ".join(f"seed {draw.seed} {draw.value:.4g}" for draw in score.draws)
    if score.reported:
        yield "reported", f"{name}: " + ", ".join(f"{key}={_short(value)}" for key, value in score.reported.items())
    if score.num_truncated:
        yield "truncated", f"{name}: {score.num_truncated} of {score.num_samples} inputs"
    for reason in score.implausible:
        yield "implausible", f"{name}: {reason}"


def _paired(score: Score) -> str:
    paired = score.paired
    assert paired is not None  # noqa: S101 -- the caller asks for paired scores only
    better = f"{paired.num_harmful} of {paired.num_samples} samples worse, {paired.num_beneficial} better"
    return better if paired.resampled is None else f"{better}; {paired.resampled.method}, seed {paired.resampled.seed}"


def _fidelity(found: Fidelity) -> Iterator[str]:
    yield f"agreement {100 * found.agreement:.2f} %"
    if found.kl_mean is not None and found.kl_p99 is not None and found.same_top_1 is not None:
        yield f"same top 1 {100 * found.same_top_1:.2f} % of {found.num_positions:,} positions"
        parts = {"mean": found.kl_mean, "median": found.kl_median, "p99": found.kl_p99, "max": found.kl_max}
        yield "KL " + ", ".join(f"{name} {value:.3g}" for name, value in parts.items()) + " nats"
    if found.cosine_mean is not None:
        yield f"cosine mean {found.cosine_mean:.5f}, least {found.cosine_min:.5f}"
    if found.length_ratio is not None:
        yield f"{found.length_ratio:.3f} times the baseline's tokens"


def _short(value: float | int | str) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"
