"""OpenVINO and NNCF tell a server what they are used for, unless somebody declined: declined here for this process."""

from __future__ import annotations


def decline_telemetry() -> None:
    """Call it before OpenVINO converts or NNCF is imported, because their telemetry asks once. Nothing is written to disk.

    Without openvino-telemetry there is nothing to decline.
    """
    try:
        from openvino_telemetry.utils import opt_in_checker
    except ImportError:
        return
    declined = opt_in_checker.ConsentCheckResult.DECLINED
    opt_in_checker.OptInChecker.check = lambda *_, **__: declined
