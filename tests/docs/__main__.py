"""`python -m tests.docs PAGE…` runs the pages and writes what was really printed into them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs._session import Session, rewritten
from tests.docs.test_pages import free_ports

for name in sys.argv[1:]:
    page = Path(name)
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder), free_ports()) as session:
        page.write_text(rewritten(page.read_text(encoding="utf-8"), session), encoding="utf-8")
