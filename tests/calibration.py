"""A calibration as model files hold it, for networks whose calibration nobody fitted."""

from typing import Any


def calibration_at(threshold: float | None, **changes: Any) -> dict[str, Any]:
    """One with this confidence threshold, which promises an error rate of 2 %."""
    return {
        "temperature": 2.0,
        "threshold": threshold,
        "max_error": 0.02,
        "promised": True,
        "errors": {"count": 1, "total": 100},
        "total": 200,
        "error_before": 0.1,
        "error_after": 0.01,
    } | changes
