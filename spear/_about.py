"""The distribution's name and version: the one place that has them, so that every hint prints the same."""

from __future__ import annotations

DISTRIBUTION = "spear-runtime"
__version__ = "0.1.0"
