"""An S3-compatible bucket behind the local files. Synchronous, for threads.

<prefix><id>/data, <prefix><id>/record.json     an object; it is there once its record is
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Final

from spear.config import S3Config
from spear.secrets import Redactor

from ._record import MAX_RECORD_BYTES, Record

_PIECE: Final = 1024 * 1024
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class BucketError(Exception):
    """The bucket cannot be used just now, or not at all. Without addresses and keys."""


class Bucket:
    """May be used from several threads. Connects at the first call."""

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._made: Any = None
        self._lock = Lock()
        self._redact = Redactor(config.secrets)

    def put(self, record: Record, path: Path) -> None:
        """Raises FileNotFoundError where the file has gone, `BucketError`."""

        def work(client: Any) -> None:
            with path.open("rb") as file:
                client.put_object(
                    Bucket=self._config.bucket,
                    Key=self._key(record.id, "data"),
                    Body=file,
                    ContentLength=record.size,
                    ContentType=record.mime,
                )
            client.put_object(Bucket=self._config.bucket, Key=self._key(record.id, "record.json"), Body=record.dump())

        self._do(work)

    def record(self, object_id: str) -> bytes | None:
        """What is written of an object; None where there is none. Raises `BucketError`."""

        def work(client: Any) -> bytes:
            answer = client.get_object(Bucket=self._config.bucket, Key=self._key(object_id, "record.json"))
            with answer["Body"] as body:
                data: bytes = body.read(MAX_RECORD_BYTES + 1)
            return data

        found: bytes | None = self._do(work)
        return found

    def get(self, record: Record, write: Callable[[bytes], None]) -> bool:
        """Give the bytes of an object to `write`, in pieces, at most one more than it has; whether it is there."""

        def work(client: Any) -> bool:
            answer = client.get_object(Bucket=self._config.bucket, Key=self._key(record.id, "data"))
            size = 0
            with answer["Body"] as body:
                while size <= record.size and (piece := body.read(min(_PIECE, record.size + 1 - size))):
                    write(piece)
                    size += len(piece)
            return True

        return bool(self._do(work))

    def delete(self, object_id: str) -> None:
        """Nothing happens where it is not there. Raises `BucketError`."""

        def work(client: Any) -> None:
            for name in ("record.json", "data"):  # without its record it is none
                client.delete_object(Bucket=self._config.bucket, Key=self._key(object_id, name))

        self._do(work)

    def _key(self, object_id: str, name: str) -> str:
        return f"{self._config.prefix}{object_id}/{name}"

    def _do(self, work: Callable[[Any], Any]) -> Any:
        """What `work` gives; None where it asks for what is not there."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return work(self._client())
        except ClientError as error:
            told = error.response.get("Error", {}).get("Code", "")
            if told in _MISSING:
                return None
            raise BucketError(self._redact(f"the bucket refuses: {told}"[:200])) from None
        except BotoCoreError as error:
            raise BucketError(f"the bucket cannot be reached: {type(error).__name__}") from None

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                import boto3
                from botocore.config import Config

                config = self._config
                self._made = boto3.session.Session().client(
                    "s3",
                    endpoint_url=config.endpoint_url.reveal() if config.endpoint_url else None,
                    region_name=config.region,
                    aws_access_key_id=config.access_key.reveal() if config.access_key else None,
                    aws_secret_access_key=config.secret_key.reveal() if config.secret_key else None,
                    config=Config(
                        connect_timeout=config.timeout_s,
                        read_timeout=config.timeout_s,
                        retries={"total_max_attempts": 2, "mode": "standard"},
                        s3={"addressing_style": "path" if config.endpoint_url else "auto"},
                        proxies={},
                    ),
                )
            return self._made
