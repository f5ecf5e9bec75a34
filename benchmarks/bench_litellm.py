"""CPU of a whole chat call over HTTP: `Runtime.chat` against `litellm.Router.acompletion`, 16 in flight.

Both go through a router with two backends to the same server (a process of its own on the other core, which answers
after 5 ms) and give a checked, typed answer. litellm runs as it comes, in a virtual environment of its own that this
script makes under `.bench/` with pip; `LITELLM_LOCAL_MODEL_COST_MAP=True` keeps it from fetching prices. The figure is
the CPU time of the client's process, so that waiting does not count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import trio
from _measure import arguments, pin_to_one_core, report, rounds, row

import spear

IN_FLIGHT = 16
REQUESTS = 30  # each of the 16 makes so many
HERE = Path(__file__).parent
HOME = HERE.parent / ".bench" / "litellm"
TEXT = "What is the capital of the country whose flag is a red disc on white? " * 4


def litellm_python() -> str:
    """The interpreter of litellm's own virtual environment, made where it is missing."""
    python = HOME / "bin" / "python"
    if not (HOME / "installed").exists():
        venv.create(HOME, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "litellm>=1.100,<2"], check=True)
        (HOME / "installed").touch()
    return str(python)


def config(port: int) -> dict[str, Any]:
    where = {"kind": "openai_chat", "hosting": "local", "base_url": f"http://127.0.0.1:{port}/v1", "model": "bench"}
    return {
        "spear": {
            "credentials": [{"name": "key", "env": "BENCH_KEY"}],
            "backends": [{"name": name, "credentials": ["key"], **where} for name in ("a", "b")],
        }
    }


async def cpu_per_call(port: int) -> float:
    async with spear.open_runtime(config(port)) as runtime:

        async def repeat(times: int) -> None:
            for _ in range(times):
                reply = await runtime.chat("bench", messages=[{"role": "user", "content": TEXT}], temperature=0.5)
                assert reply.text == "Tokyo is the capital of Japan."

        async def all_of_them(times: int) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(IN_FLIGHT):
                    nursery.start_soon(repeat, times)

        await all_of_them(2)  # connections are open after this
        before = time.process_time()
        await all_of_them(REQUESTS)
        return (time.process_time() - before) / (IN_FLIGHT * REQUESTS)


def main() -> None:
    options = arguments(__doc__, default_rounds=7)
    python = litellm_python()
    core = pin_to_one_core()
    os.environ["BENCH_KEY"] = "sk-benchmark-no-secret"
    serve = [sys.executable, str(HERE / "bench_http.py"), "--serve"]
    serve.append(str(min(os.sched_getaffinity(os.getppid()) - {core} or {core})))
    with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        port = int(server.stdout.readline())
        command = [python, str(HERE / "_litellm_client.py"), *map(str, (port, IN_FLIGHT, REQUESTS))]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            asks, answers = other.stdin, other.stdout
            name = answers.readline().strip()
            if not name:
                raise RuntimeError("litellm's client did not start")

            def theirs() -> float:
                asks.write("go\n")
                asks.flush()
                return float(answers.readline())

            cases = {"Runtime.chat": lambda: trio.run(cpu_per_call, port), "litellm.Router.acompletion": theirs}
            figures = rounds(cases, options.rounds)
            asks.close()
        server.stdin.close()
    ours, stock = cases
    report(
        f"CPU of a whole chat call over HTTP, two backends, {name}",
        [row(figures, stock), row(figures, ours, stock, 0.15)],
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
