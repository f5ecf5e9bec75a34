from __future__ import annotations

import pytest

from tests.system.ledger import KEY_ENV, Ledgers


@pytest.fixture
def ledgers(monkeypatch: pytest.MonkeyPatch) -> Ledgers:
    """The runtimes of this test count by these meters."""
    made = Ledgers()
    monkeypatch.setattr("spear._open.local_meter", made)
    monkeypatch.setenv(KEY_ENV, "the-key-of-these-tests")
    return made
