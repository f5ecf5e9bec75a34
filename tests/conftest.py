"""Fixtures that every test may ask for, and the rule of SPEAR_NO_SKIP: under it, a skip is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

from tests.servers.dialect_server import _dialect_server_process, dialect_server
from tests.servers.fault_server import _server_pool, fault_server, fault_servers
from tests.servers.redis_server import redis_server

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

__all__ = [
    "_dialect_server_process", "_server_pool", "dialect_server", "fault_server", "fault_servers", "redis_server",
]  # fmt: skip


def _refuse_skip(report: Report) -> Report:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("SPEAR_NO_SKIP"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {reason} (SPEAR_NO_SKIP is set: a skip is a failure)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_skip((yield))
