"""A real S3-compatible server of the tests: moto's, on a free port, ended with the tests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, Self

_START_LIMIT_S = 30.0


class S3Server:
    """It keeps everything in memory: killed, it starts empty again."""

    def __init__(self, bucket: str = "objects") -> None:
        self.bucket = bucket
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Returns when it answers and has the bucket; after `kill` on the same port."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + _START_LIMIT_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                break
            if time.monotonic() > ends:
                raise RuntimeError(f"moto's server did not start within {_START_LIMIT_S} s")
            time.sleep(0.02)
        self.client().create_bucket(Bucket=self.bucket)
        return self

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def client(self) -> Any:
        import boto3

        return boto3.session.Session().client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="s"
        )

    def keys(self) -> list[str]:
        return sorted(each["Key"] for each in self.client().list_objects_v2(Bucket=self.bucket).get("Contents", []))

    def read(self, key: str) -> bytes:
        body: bytes = self.client().get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def write(self, key: str, data: bytes) -> None:
        self.client().put_object(Bucket=self.bucket, Key=key, Body=data)
