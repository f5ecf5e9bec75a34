"""A process of its own that asks a runtime as often as told, and says when it was answered.

python -m tests.system.shared_process CONFIG.json SECONDS REQUESTS_PER_SECOND
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import trio

import spear
from tests.system.kit import chat


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(source, seconds, rate) -> None:
    answered, refused, slowest = [], Counter(), 0.0
    async with spear.open_runtime(source) as runtime:
        say("ready")
        sys.stdin.readline()
        ends = time.monotonic() + seconds
        while (begun := time.monotonic()) < ends:
            response = await runtime.invoke(chat(model=""))
            now = time.monotonic()
            slowest = max(slowest, now - begun)
            if response.result.error is None:
                answered.append(now)
            else:
                refused[response.result.error.code.value] += 1
            await trio.sleep(max(0.0, 1 / rate - (now - begun)))
        (node,) = [each for each in runtime.snapshot().walk() if each.path == "runtime/shared_limits"]
    told = {"answered": answered, "refused": refused, "slowest": slowest, "restarts": node.restarts, **node.state}
    say(json.dumps(told))


if __name__ == "__main__":
    trio.run(main, json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), float(sys.argv[2]), float(sys.argv[3]))
