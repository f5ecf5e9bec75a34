"""`python -m spear.cli`: the same as `spear`."""

from __future__ import annotations

from . import main

main()
