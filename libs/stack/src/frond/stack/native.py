"""Kafka and MinIO as child processes on loopback: the stack where no Docker engine answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from frond.stack.endpoints import Endpoints, new_keys
from frond.stack.errors import StackError
from frond.stack.kafka_jars import ensure_jars
from frond.stack.kafka_server import KafkaServer
from frond.stack.minio_binary import ensure_minio
from frond.stack.minio_server import MinioServer
from frond.stack.paths import free_port


class NativeStack:
    """Real Kafka and real MinIO over one data directory; see the ``Stack`` protocol.

    Ports are chosen at construction and kept over restarts. Both processes are killed when the
    process that started them dies.

    Args:
        data_dir: keeps topics, objects and the servers' logs; may hold those of an earlier run.
        kafka_port: 0 takes a free one. So does ``s3_port``.
        keys: access and secret key; random ones where none are given.
    """

    kind: Final = "native"

    def __init__(
        self,
        data_dir: Path,
        *,
        kafka_port: int = 0,
        s3_port: int = 0,
        keys: tuple[str, str] | None = None,
        logs: Path | None = None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.logs = (logs or data_dir).resolve()
        self.access_key, self.secret_key = keys or new_keys()
        self._kafka_port = kafka_port or free_port()
        self._s3_port = s3_port or free_port()
        self.kafka_bootstrap = f"127.0.0.1:{self._kafka_port}"
        self.s3_endpoint = f"http://127.0.0.1:{self._s3_port}"
        self._kafka: KafkaServer | None = None
        self._minio: MinioServer | None = None

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(self.kafka_bootstrap, self.s3_endpoint, self.access_key, self.secret_key)

    def start(self, say: Callable[[str], None] = print) -> None:
        """Fetch or compile what is missing, start both servers, return once both answer."""
        # in this order: what fails, fails before the minutes that a compilation takes
        jars = ensure_jars(say)
        binary = ensure_minio(say)
        self._minio = MinioServer(
            self.data_dir / "minio", binary, self.access_key, self.secret_key,
            port=self._s3_port, log=self.logs / "minio.log",
        )  # fmt: skip
        self._kafka = KafkaServer(
            self.data_dir / "kafka", jars, port=self._kafka_port, log=self.logs / "kafka.log"
        )
        try:
            self._minio.spawn()
            self._kafka.spawn()
            self._minio.wait_ready()
            self._kafka.wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for server in (self._kafka, self._minio):
            if server and server.child:
                server.child.terminate()
        for server in (self._kafka, self._minio):
            if server:
                server.stop()

    @property
    def kafka(self) -> KafkaServer:
        if self._kafka is None:
            raise StackError("The stack was not started.")
        return self._kafka

    @property
    def minio(self) -> MinioServer:
        if self._minio is None:
            raise StackError("The stack was not started.")
        return self._minio

    def kill_kafka(self) -> None:
        self.kafka.kill()

    def start_kafka(self) -> None:
        self.kafka.start()

    def kill_minio(self) -> None:
        self.minio.kill()

    def start_minio(self) -> None:
        self.minio.start()

    def pids(self) -> dict[str, int]:
        servers = {"kafka": self._kafka, "minio": self._minio}
        return {n: s.child.pid for n, s in servers.items() if s and s.child}

    def trouble(self) -> list[str]:
        servers = {"kafka": self._kafka, "minio": self._minio}
        return [n for n, s in servers.items() if not (s and s.child and s.child.running)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
