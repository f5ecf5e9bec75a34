"""What one worker process does: one variant, told by its standard input; lines of JSON come out.

in   {"scenario": "tail_latency" or a path, "text": …, "variant": …, "seed": …, "requests": …}
out  {"arrived": 500} now and then, at last {"result": {…}}
"""

from __future__ import annotations

import gc
import signal
import sys
from pathlib import Path
from typing import Any

from spear.ir import dump_json, parse_json
from spear.telemetry import configure_logging

from ._read import parse_scenario
from ._run import run_variant


def work() -> None:
    """Reads one job, does it, and returns. Whoever started this process ends it; a Ctrl-C is theirs to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging("error")  # refused requests are what a scenario is about
    job: Any = parse_json(sys.stdin.buffer.read())
    file = Path(job["file"])
    scenario = parse_scenario(job["text"].encode(), file=str(file), folder=file.parent, only=(job["variant"],))
    # What is there by now stays for ever: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    result = run_variant(
        scenario,
        job["variant"],
        seed=job["seed"],
        requests=job["requests"],
        tell=lambda arrived: _say({"arrived": arrived}),
    )
    _say({"result": result})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(dump_json(line) + b"\n")
    sys.stdout.buffer.flush()
