"""What a record says of its scores beyond their values."""

from __future__ import annotations

import record_builder as build

from compressbench.records.score import Draw, Fidelity, Floor, Score
from compressbench.report.score_facts import score_facts


def said(score: Score) -> dict[str, str]:
    return dict(score_facts(score))


def test_a_plain_score_has_nothing_to_add() -> None:
    assert said(build.accuracy()) == {}


def test_everything_that_a_score_has_is_said() -> None:
    fidelity = Fidelity(
        agreement=0.99, num_positions=3080, same_top_1=0.985, kl_mean=0.002, kl_median=0.001, kl_p99=0.03, kl_max=0.4,
        cosine_mean=0.999, cosine_min=0.9, length_ratio=0.5,
    )  # fmt: skip
    draws = tuple(Draw(seed=seed, value=0.9 + seed / 100, samples_file="f", samples_sha256="0") for seed in (0, 1))
    found = said(
        build.accuracy_after(9, 4).model_copy(
            update={
                "label": "sst2", "margin": 0.005, "stratum": "language", "fidelity": fidelity, "draws": draws,
                "floor": Floor(how="batch size 32", paired=build.counts(1, 2, 1000)), "calibration_error": 0.034,
                "reported": {"acc_stderr,none": 0.0123, "alias": "sst2"}, "num_truncated": 7, "implausible": ("odd",),
            }
        )
    )  # fmt: skip
    assert found["declared"] == "sst2: margin 0.005, stratum language"
    assert found["paired"] == "sst2: 9 of 3080 samples worse, 4 better"
    assert found["fidelity"] == (
        "sst2: agreement 99.00 %, same top 1 98.50 % of 3,080 positions, KL mean 0.002, median 0.001, p99 0.03, "
        "max 0.4 nats, cosine mean 0.99900, least 0.90000, 0.500 times the baseline's tokens"
    )
    assert found["noise floor"] == "sst2: the baseline asked again (batch size 32): 1 lost, 2 won of 1000"
    assert found["calibration"] == "sst2: expected calibration error 3.40 %"
    assert found["draws"] == "sst2: seed 0 0.9, seed 1 0.91"
    assert found["reported"] == "sst2: acc_stderr,none=0.0123, alias=sst2"
    assert found["truncated"] == "sst2: 7 of 3080 inputs"
    assert found["implausible"] == "sst2: odd"
