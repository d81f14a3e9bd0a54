"""What is wrong with a config, as an answer tells it."""

from __future__ import annotations

from sidecar.config.errors import ConfigError


def test_a_fault_is_a_row_of_an_answer() -> None:
    """
    Place, problem and remedy stand in the row; the file does not, which the answer names once.
    """
    fault = ConfigError("routes.a.limit.rate", 3, 7, "'5' has no unit", "write 5/s for a rate", "sidecar.yaml")
    assert fault.to_json() == {
        "path": "routes.a.limit.rate", "line": 3, "column": 7, "problem": "'5' has no unit", "hint": "write 5/s for a rate",
    }  # fmt: skip
