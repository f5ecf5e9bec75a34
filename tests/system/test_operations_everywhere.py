"""Every operation × a guest compiled from C, a Python call and a command × the embedded backends and a server of each
dialect: what comes back is looked at, and at servers what was asked.
"""

from __future__ import annotations

import tomllib

import pytest
import trio

import spear
from tests.system.everywhere import (
    KEY_ENV,
    NOT_ON_THE_COMMAND_LINE,
    PLACES,
    asked,
    by_command,
    by_guest,
    by_python,
    check,
)

LIMIT = 60.0


@pytest.fixture(params=list(PLACES))
def place(request, monkeypatch):
    """Where it is done, and its server if there is one."""
    monkeypatch.setenv(KEY_ENV, "the-key-of-these-tests")
    found = PLACES[request.param]
    return found, request.getfixturevalue(found.server) if found.server else None


@pytest.mark.parametrize("way", [by_guest, by_python])
async def test_by_a_guest_and_in_python(place, way):
    where, server = place
    with trio.fail_after(LIMIT):
        async with spear.open_runtime(tomllib.loads(where.toml(server))) as runtime:
            for cell in where.cells:
                check(where.name, cell, await way(runtime, cell))
    if server is not None:
        seen_at_the_server(server, where, list(where.cells))
        await server.until(open=0, connections_open=0)


def test_by_a_command(place, tmp_path):
    where, server = place
    (tmp_path / "spear.toml").write_text(where.toml(server), encoding="utf-8")
    cells = [cell for cell in where.cells if cell not in NOT_ON_THE_COMMAND_LINE]
    for cell in cells:
        check(where.name, cell, by_command(tmp_path, cell))
    if server is not None:
        seen_at_the_server(server, where, cells)


def seen_at_the_server(server, where, cells):
    requests = server.requests()
    assert [each["path"].partition("?")[0] for each in requests] == asked(where, cells)
    for each in requests:
        assert any("the-key-of-these-tests" in value for _, value in each["headers"]), each["path"]
