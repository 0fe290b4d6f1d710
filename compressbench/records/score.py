"""One task's result in a record: its value, how it differs from the baseline's, and what else changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from compressbench.core.spec import Spec


class Resampled(Spec):
    """A difference whose interval and p-value come from resampling the rows, candidate less baseline.

    In the unit of the metric; in nats where the score's `scale` is log. `num_units` are the clusters or samples drawn.
    """

    difference: float
    low: float
    high: float
    standard_error: float = Field(ge=0)
    p_value: float | None = Field(None, ge=0, le=1)
    method: str
    seed: int
    num_resamples: int = Field(ge=0)
    num_units: int = Field(gt=0)


class Paired(Spec):
    """Candidate against baseline on the same samples, as sufficient statistics of the per-sample rows.

    The difference of one sample is score(candidate) - score(baseline); mean and sd are weighted by the samples' weights.
    `num_harmful` and `num_beneficial` count the samples that became worse and better in the metric's direction (before
    schema 4: whose score fell and rose). `resampled` is there where these numbers are not enough: metrics that are no
    proportions, and clusters.
    """

    num_samples: int = Field(gt=0)
    num_harmful: int = Field(ge=0)
    num_beneficial: int = Field(ge=0)
    mean_difference: float
    sd_difference: float = Field(ge=0)
    resampled: Resampled | None = None

    @property
    def churn(self) -> float:
        """The share of samples whose score changed."""
        return (self.num_harmful + self.num_beneficial) / self.num_samples


class Fidelity(Spec):
    """How far a candidate's answers are from the baseline's, whatever is right.

    `agreement` is the share of samples with the same prediction. KL is KL(baseline || candidate) in nats per position, over
    the baseline's `top_k` likeliest classes and one class for all others: a lower bound, exact where there are no others.
    Cosines are between embeddings of the same text; `length_ratio` is tokens produced, candidate over baseline.
    """

    agreement: float = Field(ge=0, le=1)
    num_positions: int = Field(0, ge=0)
    num_classes: int | None = None
    top_k: int | None = None
    same_top_1: float | None = Field(None, ge=0, le=1)
    kl_mean: float | None = None
    kl_median: float | None = None
    kl_p99: float | None = None
    kl_max: float | None = None
    cosine_mean: float | None = None
    cosine_min: float | None = None
    length_ratio: float | None = None


class Stratum(Spec):
    """The samples of one capability."""

    num_samples: int = Field(gt=0)
    value: float
    paired: Paired | None = None


class Draw(Spec):
    """The score of one seed or calibration draw; the first is the model that was measured."""

    seed: int
    value: float
    samples_file: str
    samples_sha256: str
    paired: Paired | None = None


class Floor(Spec):
    """The baseline against itself, asked again in another batch size and order."""

    how: str
    paired: Paired


class Score(Spec):
    """One task's result. The rows behind it are in `samples_file`, beside the record.

    `value` is None where the answers are no numbers; `implausible` then says why, as it does for numbers that can't be
    trusted. `scale: log` means that the value is exp of the mean score, and that margins are fractions of it.
    `reported` is what the task says of its rows under other names: means of further metrics, or a harness's own values.
    `calibration_error` is the expected calibration error of the confidences (15 bins, Guo et al. 2017, arXiv:1706.04599).
    """

    task: str
    label: str = ""
    version: int
    protocol_id: str
    options: Mapping[str, Any]
    data: str
    split: str
    data_revision: str
    metric: str
    direction: Literal["higher", "lower"]
    is_binary: bool
    scale: Literal["linear", "log"] = "linear"
    margin: float | None = Field(None, gt=0)
    stratum: str = ""
    value: float | None
    num_samples: int = Field(ge=0)
    samples_file: str
    samples_sha256: str
    seconds: float = Field(ge=0)
    num_truncated: int = Field(0, ge=0)
    implausible: tuple[str, ...] = ()
    calibration_error: float | None = Field(None, ge=0, le=1)
    reported: Mapping[str, float | int | str] = {}
    paired: Paired | None = None
    strata: Mapping[str, Stratum] = {}
    fidelity: Fidelity | None = None
    floor: Floor | None = None
    draws: tuple[Draw, ...] = ()
    over_draws: Resampled | None = None
    outputs_file: str = ""
    outputs_sha256: str = ""

    @property
    def is_log(self) -> bool:
        """Before schema 4 the only metric on a log scale was perplexity."""
        return self.scale == "log" or self.metric == "perplexity"

    @model_validator(mode="after")
    def _has_a_value_or_says_why_not(self) -> Score:
        if self.value is None and not self.implausible:
            raise ValueError(f"{self.metric}: a score without a value needs a reason in `implausible`")
        return self
