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
from frond.stack.small_disk import SmallDisk
from frond.stack.toxiproxy_binary import ensure_toxiproxy
from frond.stack.toxiproxy_server import Proxy, ToxiproxyServer


class NativeStack:
    """Real Kafka and real MinIO over one data directory; see the ``Stack`` protocol.

    Ports are chosen at construction and kept over restarts. Both processes are killed when the
    process that started them dies.

    Args:
        data_dir: keeps topics, objects and the servers' logs; may hold those of an earlier run.
        kafka_port: 0 takes a free one. So does ``s3_port``.
        keys: access and secret key; random ones where none are given.
        proxied: put Toxiproxy in front of both: ``endpoints`` lead through it, ``direct`` do not.
        small_disk_mb: let topics and objects lie on two disks of this size, which can be filled;
            what is on them is gone after ``stop``.

    Attributes:
        direct: the servers themselves, for whoever looks on from outside.
        proxies: ``kafka`` and ``s3``, where proxied.
        disks: ``kafka`` and ``s3``, where small; there once started.
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
        proxied: bool = False,
        small_disk_mb: int = 0,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.logs = (logs or data_dir).resolve()
        self.access_key, self.secret_key = keys or new_keys()
        self._kafka_port = kafka_port or free_port()
        self._s3_port = s3_port or free_port()
        self._small_disk_mb = small_disk_mb
        self.disks: dict[str, SmallDisk] = {}
        self.direct = Endpoints(
            f"127.0.0.1:{self._kafka_port}", f"http://127.0.0.1:{self._s3_port}",
            self.access_key, self.secret_key,
        )  # fmt: skip
        # of each proxy the port it listens on, and the one it leads to
        self._routes: dict[str, tuple[int, int]] = {}
        self.kafka_bootstrap = self.direct.kafka_bootstrap
        self.s3_endpoint = self.direct.s3_endpoint
        if proxied:
            kafka, s3 = (free_port(), free_port()), (free_port(), self._s3_port)
            self._routes = {"kafka": kafka, "s3": s3}
            self.kafka_bootstrap = f"127.0.0.1:{kafka[0]}"
            self.s3_endpoint = f"http://127.0.0.1:{s3[0]}"
        self._toxiproxy: ToxiproxyServer | None = None
        self._kafka: KafkaServer | None = None
        self._minio: MinioServer | None = None

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(self.kafka_bootstrap, self.s3_endpoint, self.access_key, self.secret_key)

    @property
    def proxies(self) -> dict[str, Proxy]:
        return self._toxiproxy.proxies if self._toxiproxy else {}

    def start(self, say: Callable[[str], None] = print) -> None:
        """Fetch or compile what is missing, start both servers, return once both answer."""
        # in this order: what fails, fails before the minutes that a compilation takes
        jars = ensure_jars(say)
        toxiproxy = ensure_toxiproxy(say) if self._routes else None
        binary = ensure_minio(say)
        try:
            if self._small_disk_mb:
                self.disks = {
                    "kafka": SmallDisk(self.data_dir / "kafka-disk", self._small_disk_mb),
                    "s3": SmallDisk(self.data_dir / "minio-disk", self._small_disk_mb),
                }
            if toxiproxy:
                log = self.logs / "toxiproxy.log"
                self._toxiproxy = ToxiproxyServer(toxiproxy, self._routes, log=log)
                self._toxiproxy.start()
            self._minio = MinioServer(
                self.data_dir / "minio", binary, self.access_key, self.secret_key,
                port=self._s3_port, log=self.logs / "minio.log", disk=self.disks.get("s3"),
            )  # fmt: skip
            proxy_port, proxied_port = self._routes.get("kafka", (0, 0))
            self._kafka = KafkaServer(
                self.data_dir / "kafka", jars, port=self._kafka_port, log=self.logs / "kafka.log",
                proxy_port=proxy_port, proxied_port=proxied_port, disk=self.disks.get("kafka"),
            )  # fmt: skip
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
        if self._toxiproxy:
            self._toxiproxy.stop()
        for disk in self.disks.values():
            disk.close()
        self.disks = {}

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
