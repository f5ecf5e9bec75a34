"""Fixtures that every test may ask for."""

from __future__ import annotations

from tests.servers.fault_server import _server_pool, fault_server, fault_servers

__all__ = ["_server_pool", "fault_server", "fault_servers"]
