"""A record: the whole truth about one baseline or one candidate in one run.

History of SCHEMA_VERSION (a record is read by its own version; nothing is ever rewritten):
1  the first: scores with their per-sample files, raw interleaved blocks, readings, reasons for what is absent.
2  adds `audit` and `artefact`; everything that version 1 has means the same, so that its records stay comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from compressbench.core.protocols import Provenance
from compressbench.core.reading import Reading
from compressbench.core.spec import Spec
from compressbench.records.audit import Audit
from compressbench.records.environment import Environment

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)

Arm = Literal["baseline", "candidate"]
Nanoseconds = Annotated[int, Field(gt=0)]


class ModelSource(Spec):
    """Where the weights came from. `revision` is what was resolved: a Hub commit, or the SHA-256 of the local files."""

    id: str
    revision: str
    trust_remote_code: bool = False
    architecture: str
    dtype: str


class AppliedStep(Spec):
    """One use of a method: its options with every default, what it cost, and what it noted about itself."""

    use: str
    options: Mapping[str, Any]
    seconds: float = Field(ge=0)
    notes: Mapping[str, str | int | float | bool] = {}


class Paired(Spec):
    """Candidate against baseline on the same samples, as sufficient statistics of the per-sample rows.

    The difference of one sample is score(candidate) - score(baseline); mean and sd are weighted by the samples' weights.
    `num_harmful` and `num_beneficial` count the samples whose score fell or rose.
    """

    num_samples: int = Field(gt=0)
    num_harmful: int = Field(ge=0)
    num_beneficial: int = Field(ge=0)
    mean_difference: float
    sd_difference: float = Field(ge=0)


class Score(Spec):
    """One task's result. The rows behind it are in `samples_file`, beside the record."""

    task: str
    version: int
    protocol_id: str
    options: Mapping[str, Any]
    data: str
    split: str
    data_revision: str
    metric: str
    direction: Literal["higher", "lower"]
    is_binary: bool
    value: float
    num_samples: int = Field(gt=0)
    samples_file: str
    samples_sha256: str
    seconds: float = Field(ge=0)
    paired: Paired | None = None


class Block(Spec):
    """Calls of one arm, one after the other. `raw` are additive values that block meters read over the whole block."""

    round: int = Field(ge=0)
    position: int = Field(ge=0, le=3)
    arm: Arm
    latencies_ns: tuple[Nanoseconds, ...] = Field(min_length=1)
    raw: Mapping[str, float] = {}


class WarmUp(Spec):
    """What was run and thrown away before the blocks; `not-reached` rows can't be ranked."""

    num_calls: int
    seconds: float
    first_call_s: float
    steady_state: Literal["yes", "not-reached"]


class Measurement(Spec):
    """Interleaved A B B A blocks of baseline and candidate on the same inputs, raw, in the order they ran."""

    batch_size: int
    num_inputs: int
    warm_up: Mapping[Arm, WarmUp]
    blocks: tuple[Block, ...]
    provenance: Mapping[str, Provenance]
    harness_overhead_ns: float
    calls_per_block: Mapping[Arm, int]


class Artefact(Spec):
    """A candidate as it was saved. `folder` is relative to the record; `sha256` is over all its files in order of name.

    `max_difference` is the largest difference of any logit between the candidate and what was loaded again from the
    folder, on the first batch of the workload.
    """

    folder: str
    num_bytes: int = Field(gt=0)
    sha256: str
    max_difference: float = Field(ge=0)


class Failure(Spec):
    type: str
    message: str


class RecipeRef(Spec):
    name: str
    hash: str
    text: Mapping[str, Any]


class Record(Spec):
    """`key` is the content hash of all that decides the result.

    The measurement of a candidate holds both arms; that of the baseline compares it with a copy of itself, and so shows
    the smallest difference that this machine lets anybody see.
    """

    schema_version: Literal[1, 2] = 2
    run_id: str
    created_utc: str
    recipe: RecipeRef
    candidate: str
    role: Arm
    key: str
    status: Literal["ok", "failed", "unsupported"]
    failure: Failure | None = None
    model: ModelSource | None = None
    steps: tuple[AppliedStep, ...] = ()
    runtime: Mapping[str, Any]
    device: str
    workload: Mapping[str, Any]
    scores: tuple[Score, ...] = ()
    measurement: Measurement | None = None
    readings: tuple[Reading, ...] = ()
    absent: Mapping[str, str] = {}
    audit: Audit | None = None
    artefact: Artefact | None = None
    environment: Environment

    @model_validator(mode="after")
    def _is_ok_or_says_why_not(self) -> Record:
        if (self.status == "ok") == (self.failure is not None):
            raise ValueError(f"status '{self.status}' and failure {self.failure!r} contradict each other")
        return self

    @model_validator(mode="after")
    def _says_what_was_asked(self) -> Record:
        lacking = [
            *({"model", "tasks", "meters", "candidates"} - self.recipe.text.keys()),
            *({"scenario", "batch_size", "sequence_length"} - self.workload.keys()),
        ]
        if lacking:
            raise ValueError(f"the recipe or the workload lacks {', '.join(sorted(lacking))}")
        return self

    @property
    def position(self) -> int:
        """0 for the baseline, then the candidates as the recipe has them."""
        names = [candidate["name"] for candidate in self.recipe.text["candidates"]]
        return names.index(self.candidate) + 1 if self.candidate in names else 0

    def reading(self, name: str) -> Reading | None:
        return next((reading for reading in self.readings if reading.name == name), None)
