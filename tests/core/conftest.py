"""Both page walks, for the tests that hold for each."""

from __future__ import annotations

import page_tables
import pytest


@pytest.fixture(params=["python", "compiled"])
def either_walk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`page_tables.Space` walks by Python, then by the compiled twin."""
    monkeypatch.setattr(page_tables, "COMPILED", request.param == "compiled")
