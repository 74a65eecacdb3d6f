"""Where a running stack answers, and with which credentials."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A running Kafka and MinIO.

    Attributes:
        kafka_bootstrap: ``host:port``.
        s3_endpoint: URL with scheme, ``http://host:port``.
    """

    kafka_bootstrap: str
    s3_endpoint: str
    access_key: str
    secret_key: str

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """Write atomically, readable by this user alone."""
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            json.dump(asdict(self), f)
        temporary.replace(path)

    def env(self) -> dict[str, str]:
        """The environment by which services and clients find it."""
        return {
            "FROND_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "FROND_S3_ENDPOINT": self.s3_endpoint,
            "FROND_S3_ACCESS_KEY": self.access_key,
            "FROND_S3_SECRET_KEY": self.secret_key,
        }


class Stack(Protocol):
    """A Kafka and a MinIO that can be started, killed and started again at the same address.

    Attributes:
        kind: ``docker`` or ``native``.
    """

    @property
    def kind(self) -> str: ...

    kafka_bootstrap: str
    s3_endpoint: str
    access_key: str
    secret_key: str

    def start(self, say: Callable[[str], None] = print) -> None:
        """Return once both answer."""

    def stop(self) -> None:
        """End both; the data stays."""

    def kill_kafka(self) -> None:
        """SIGKILL the broker."""

    def start_kafka(self) -> None:
        """Start the broker again on the same port and data, and wait until it answers."""

    def kill_minio(self) -> None:
        """SIGKILL the object store."""

    def start_minio(self) -> None:
        """Start the object store again on the same port and data, and wait until it answers."""

    def pids(self) -> dict[str, int]:
        """The processes of ``kafka`` and ``minio``; those in containers are not told."""

    def trouble(self) -> list[str]:
        """The names of servers that should run and do not: ``kafka``, ``minio``."""

    @property
    def endpoints(self) -> Endpoints: ...


def new_keys() -> tuple[str, str]:
    """A random access key and secret key."""
    return f"frond-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
