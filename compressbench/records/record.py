"""A record: the whole truth about one baseline or one candidate in one run.

History of SCHEMA_VERSION (a record is read by its own version; nothing is ever rewritten):
1  the first: scores with their per-sample files, raw interleaved blocks, readings, reasons for what is absent.
2  adds `audit` and `artefact`; everything that version 1 has means the same, so that its records stay comparable.
3  adds the measurement protocol 2 (see measurement.py), `limits` and `work`; readings in joules say their window and tick.
   Sizes, scores and audits stay comparable; latencies and energies compare within their own run, as ever.
4  adds to scores what score.py has beyond `paired`: labels, margins, strata, resampled differences, fidelity, noise floors,
   draws, plausibility. A score can be without a value. Values stay comparable; verdicts are adjusted for multiplicity now.
5  adds `deployment` (see deployment.py) for runtimes other than `torch`, and CPU threads and a limit of latency to sweeps,
   and to measurements how many blocks ended with logits that are no numbers; everything else means what it meant.
   Readings of energy need the tick of their meter, and joules or watts in their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from compressbench.core.reading import Reading
from compressbench.core.spec import Spec
from compressbench.core.units import is_energy, require_energy_unit
from compressbench.records.asked import misshapen
from compressbench.records.audit import Audit
from compressbench.records.deployment import Deployment
from compressbench.records.environment import Environment
from compressbench.records.limits import Limits, Work
from compressbench.records.measurement import Measurement
from compressbench.records.score import Score

SCHEMA_VERSION = 5
READABLE_VERSIONS = (1, 2, 3, 4, 5)

Role = Literal["baseline", "candidate"]


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

    schema_version: Literal[1, 2, 3, 4, 5] = 5
    run_id: str
    created_utc: str
    recipe: RecipeRef
    candidate: str
    role: Role
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
    deployment: Deployment | None = None
    limits: Limits | None = None
    work: Work | None = None
    environment: Environment

    @model_validator(mode="after")
    def _is_ok_or_says_why_not(self) -> Record:
        if (self.status == "ok") == (self.failure is not None):
            raise ValueError(f"status '{self.status}' and failure {self.failure!r} contradict each other")
        return self

    @model_validator(mode="after")
    def _says_what_was_asked(self) -> Record:
        if wrong := misshapen(self.recipe.text, self.workload, self.runtime):
            raise ValueError(wrong)
        if self.measurement is not None and self.role not in self.measurement.warm_up:
            raise ValueError(f"the measurement of a {self.role} has no warm-up of it")
        return self

    @model_validator(mode="after")
    def _joules_say_how_they_were_read(self) -> Record:
        """Versions 1 and 2 had no protocol 2, and no windows and ticks of readings."""
        if self.schema_version < 3:
            return self
        if self.measurement is not None and self.measurement.protocol < 2:
            raise ValueError("schema 3 and later have measurements of protocol 2, which says how every joule was read")
        for reading in self.readings:
            require_energy_unit(reading.name)
            if not is_energy(reading.name):
                continue
            if not (reading.boundary and reading.window_s) or (reading.tick_s is None and reading.kind != "modelled"):
                raise ValueError(f"{reading.name}: energy needs its boundary, window_s, and the tick_s of its meter")
        return self

    @property
    def position(self) -> int:
        """0 for the baseline, then the candidates as the recipe has them."""
        names = [candidate["name"] for candidate in self.recipe.text["candidates"]]
        return names.index(self.candidate) + 1 if self.candidate in names else 0

    def reading(self, name: str) -> Reading | None:
        return next((reading for reading in self.readings if reading.name == name), None)
