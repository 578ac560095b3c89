"""Cases that only `make test-all` runs."""

from __future__ import annotations

from typing import Any

import pytest


def exhaustive(*cases: Any) -> list[Any]:
    """They say at more points, or at the other cloud, what the other cases of a test say."""
    return [pytest.param(case, marks=pytest.mark.exhaustive) for case in cases]
