"""The other side of bench_litellm.py, run by the interpreter of litellm's own virtual environment.

`_litellm_client.py PORT IN_FLIGHT REQUESTS`: for each line on stdin, IN_FLIGHT tasks make REQUESTS calls each; prints
the CPU seconds per call. The router is made once, with two deployments of the same server and no other settings.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 -- litellm runs on it, and nothing of Spear does here
import sys
import time
from importlib.metadata import version

import litellm  # of the virtual environment that runs this file

MESSAGES = [{"role": "user", "content": "What is the capital of the country whose flag is a red disc on white? " * 4}]


async def main(port: int, in_flight: int, requests: int) -> None:
    where = {"model": "openai/bench", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "sk-benchmark-no-secret"}
    router = litellm.Router(model_list=[{"model_name": "bench", "litellm_params": dict(where)} for _ in range(2)])

    async def repeat(times: int) -> None:
        for _ in range(times):
            answer = await router.acompletion("bench", MESSAGES, temperature=0.5)
            assert answer.choices[0].message.content == "Tokyo is the capital of Japan."

    async def all_of_them(times: int) -> None:
        await asyncio.gather(*(repeat(times) for _ in range(in_flight)))

    await all_of_them(2)
    print(f"litellm {version('litellm')}", flush=True)
    while sys.stdin.readline():
        before = time.process_time()
        await all_of_them(requests)
        print((time.process_time() - before) / (in_flight * requests), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
