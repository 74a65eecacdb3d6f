"""Kafka and MinIO in containers (testcontainers): the stack where a Docker engine answers."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from frond.stack.aio import metadata_answers
from frond.stack.endpoints import Endpoints, new_keys
from frond.stack.errors import StackError
from frond.stack.minio_server import http_ok
from frond.stack.paths import free_port

KAFKA_IMAGE: Final = "apache/kafka:4.1.0"
MINIO_IMAGE: Final = "minio/minio:RELEASE.2025-09-07T16-13-09Z"
_LABEL: Final = "frond.stack.owner"
# Ryuk is one more image to pull; containers of a dead owner are removed by the next start instead
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
# inside a machine that looks like a container, published ports still are those of this host
os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")


def why_no_docker() -> str:
    """Why the stack cannot run in containers here; empty when it can."""
    from docker.errors import DockerException

    import docker

    try:
        client = docker.from_env(timeout=10)
        client.ping()
    except DockerException:
        return "no Docker engine answers"
    try:
        for image in (KAFKA_IMAGE, MINIO_IMAGE):
            if not client.images.list(name=image):
                try:
                    docker.from_env(timeout=300).images.pull(image)
                except DockerException:
                    return f"the image {image} is not here and cannot be pulled"
    finally:
        client.close()
    return ""


class DockerStack:
    """Kafka and MinIO in two containers; see the ``Stack`` protocol.

    Host ports are chosen at construction and published as they are: a port that Docker chooses
    would be another one after each restart.

    Args:
        volumes: a name for Docker volumes that outlive the containers; without one, topics and
            objects go with them.
    """

    kind: Final = "docker"

    def __init__(
        self,
        *,
        kafka_port: int = 0,
        s3_port: int = 0,
        keys: tuple[str, str] | None = None,
        volumes: str = "",
    ) -> None:
        self._volumes = volumes
        self.access_key, self.secret_key = keys or new_keys()
        self._kafka_port = kafka_port or free_port()
        self._s3_port = s3_port or free_port()
        self.kafka_bootstrap = f"127.0.0.1:{self._kafka_port}"
        self.s3_endpoint = f"http://127.0.0.1:{self._s3_port}"
        self._kafka: Any = None
        self._minio: Any = None

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(self.kafka_bootstrap, self.s3_endpoint, self.access_key, self.secret_key)

    def start(self, say: Callable[[str], None] = print) -> None:
        say("Starting Kafka and MinIO in containers")
        _remove_orphans()
        if self._kafka is None:
            self._kafka, self._minio = self._kafka_container(), self._minio_container()
        try:
            self._minio.start()
            self._kafka.start()
            self._wait(self._minio_answers, "MinIO", self._minio)
            self._wait(self._kafka_answers, "Kafka", self._kafka)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End and remove both containers; what lies in named volumes stays."""
        for container in (self._kafka, self._minio):
            if container is not None:
                with contextlib.suppress(Exception):  # one that never started, or is gone
                    container.stop(force=True, delete_volume=True)
        self._kafka = self._minio = None

    def kill_kafka(self) -> None:
        self._kafka.get_wrapped_container().kill()

    def start_kafka(self) -> None:
        with _told():
            self._kafka = _again(self._kafka, self._kafka_container)
            self._wait(self._kafka_answers, "Kafka", self._kafka)

    def kill_minio(self) -> None:
        self._minio.get_wrapped_container().kill()

    def start_minio(self) -> None:
        with _told():
            self._minio = _again(self._minio, self._minio_container)
            self._wait(self._minio_answers, "MinIO", self._minio)

    def pids(self) -> dict[str, int]:
        return {}

    def trouble(self) -> list[str]:
        """As the protocol has it; none while the engine does not answer, which may be starting."""
        from docker.errors import NotFound

        down = []
        for name, container in (("kafka", self._kafka), ("minio", self._minio)):
            wrapped = container.get_wrapped_container() if container is not None else None
            try:
                if wrapped is not None:
                    with _told():
                        wrapped.reload()
            except StackError as e:
                if not isinstance(e.__cause__, NotFound):
                    return []
                wrapped = None
            if wrapped is None or wrapped.status not in ("running", "created", "restarting"):
                down.append(name)
        return down

    def _kafka_answers(self) -> bool:
        return metadata_answers(self.kafka_bootstrap)

    def _minio_answers(self) -> bool:
        return http_ok(f"{self.s3_endpoint}/minio/health/ready")

    def _wait(self, ready: Callable[[], bool], name: str, container: Any) -> None:
        end = time.monotonic() + 120
        while not ready():
            wrapped = container.get_wrapped_container()
            wrapped.reload()
            if wrapped.status == "exited" or time.monotonic() > end:
                log = wrapped.logs(tail=30).decode("utf-8", "replace")
                raise StackError(f"The {name} container did not get ready:\n{log}")
            # nothing announces that a server has begun to listen
            time.sleep(0.1)

    def _kafka_container(self) -> Any:
        # one KAFKA_* property drops the image's own defaults: this is the full set
        return self._container(KAFKA_IMAGE, self._kafka_port, "/var/lib/kafka/data").with_envs(
            CLUSTER_ID="ZnJvbmQtdGVzdHMtc3RhY2",
            KAFKA_NODE_ID="1",
            KAFKA_PROCESS_ROLES="broker,controller",
            KAFKA_CONTROLLER_QUORUM_VOTERS="1@127.0.0.1:9093",
            KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
            KAFKA_INTER_BROKER_LISTENER_NAME="PLAINTEXT",
            KAFKA_LISTENERS=f"PLAINTEXT://:{self._kafka_port},CONTROLLER://127.0.0.1:9093",
            KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://127.0.0.1:{self._kafka_port}",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            KAFKA_LOG_DIRS="/var/lib/kafka/data",
            KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
            KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS="5",
            KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS="3",
            KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
            KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS="1000",
            KAFKA_BROKER_SESSION_TIMEOUT_MS="4000",
            KAFKA_BROKER_HEARTBEAT_INTERVAL_MS="500",
            KAFKA_HEAP_OPTS="-Xms128m -Xmx512m",
        )

    def _minio_container(self) -> Any:
        address = f":{self._s3_port}"
        return (
            self._container(MINIO_IMAGE, self._s3_port, "/data")
            .with_envs(
                MINIO_ROOT_USER=self.access_key,
                MINIO_ROOT_PASSWORD=self.secret_key,
                MINIO_BROWSER="off",
                MINIO_UPDATE="off",
            )
            .with_command(f"server /data --quiet --address {address}")
        )

    def _container(self, image: str, port: int, data: str) -> Any:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(image)
        container.ports[str(port)] = ("127.0.0.1", port)  # type: ignore[assignment] # as docker-py takes it
        if self._volumes:
            kind = image.split("/")[0]
            container.with_volume_mapping(f"{self._volumes}-{kind}", data, "rw")
        return container.with_kwargs(labels={_LABEL: str(os.getpid())})


def find_volumes(begin: str) -> list[str]:
    """The names of the volumes that begin like this.

    Raises:
        StackError: Docker does not answer.
    """
    import docker

    with _told():
        client = docker.from_env(timeout=10)
        found = [volume.name for volume in client.volumes.list(filters={"name": begin})]
        client.close()
    return sorted(name for name in found if name.startswith(f"{begin}-"))


def remove_volumes(begin: str) -> list[str]:
    """Remove the volumes that begin like this, and everything in them; returns their names.

    Raises:
        StackError: Docker does not answer, or a container has one of them.
    """
    import docker

    names = find_volumes(begin)
    with _told():
        client = docker.from_env()
        for name in names:
            client.volumes.get(name).remove()
        client.close()
    return names


def _again(container: Any, make: Callable[[], Any]) -> Any:
    """The container, started; another one over the same volume where somebody has removed it."""
    from docker.errors import NotFound

    try:
        container.get_wrapped_container().start()
    except NotFound:
        container = make()
        container.start()
    return container


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors of Docker, and of the way to it, as a ``StackError``."""
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, OSError) as e:
        raise StackError(f"Docker: {e}") from e


def _remove_orphans() -> None:
    """Remove containers whose owner was killed before it could."""
    from docker.errors import DockerException

    import docker

    client = docker.from_env()
    for container in client.containers.list(all=True, filters={"label": _LABEL}):
        try:
            os.kill(int(container.labels[_LABEL]), 0)
        except ProcessLookupError:
            with contextlib.suppress(DockerException):
                container.remove(force=True, v=True)
        except PermissionError:
            pass  # another user's, and alive
    client.close()
