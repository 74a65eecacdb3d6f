"""A single-node Kafka (KRaft) as a child process on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Final

from frond.stack.aio import metadata_answers
from frond.stack.errors import StackError
from frond.stack.java import find_java
from frond.stack.paths import free_port
from frond.stack.process import Child
from frond.stack.small_disk import SmallDisk

_SETTINGS: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={advertised}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# a killed broker is let in again only when its old session is over
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
# tests make some 60 partitions each: small index files, few threads
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
num.recovery.threads.per.data.dir=2
num.network.threads=2
num.io.threads=4
background.threads=2
log.message.timestamp.after.max.ms=9223372036854775807
"""

_LOG4J: Final = """\
status=error
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=OUT
logger.kafka.name=kafka.server
logger.kafka.level=info
"""


class KafkaServer:
    """One broker on a fixed loopback port, over a data directory that outlives it.

    Args:
        proxy_port: of a proxy in front of it. Whoever bootstraps through the proxy is told that
            address of the broker, and stays on the proxy; ``proxied_port`` is where it must lead.
        disk: where topics lie in place of ``data``.

    Attributes:
        bootstrap: ``host:port`` for clients; the same after every restart.
    """

    def __init__(
        self,
        data: Path,
        jars: Path,
        *,
        port: int = 0,
        log: Path | None = None,
        proxy_port: int = 0,
        proxied_port: int = 0,
        disk: SmallDisk | None = None,
    ) -> None:
        self.data = data
        self.jars = jars
        self.port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.log = log or data / "kafka.log"
        self._proxy_port = proxy_port
        self._proxied_port = proxied_port
        self.disk = disk
        self._controller = free_port()
        self.child: Child | None = None

    def spawn(self) -> Child:
        """Start the process (formatting an empty data directory first), without waiting."""
        self.data.mkdir(parents=True, exist_ok=True)
        settings = self.data / "server.properties"
        settings.write_text(self._settings())
        (self.data / "log4j2.properties").write_text(_LOG4J)
        seen = self.disk.inside if self.disk else self.data
        if not (seen / "logs" / "meta.properties").exists():
            self._format(settings)
        self.child = Child(
            "Kafka", [*self._java(), "kafka.Kafka", settings], log=self.log, env=self._env()
        )
        return self.child

    def _settings(self) -> str:
        listeners = advertised = f"PLAINTEXT://127.0.0.1:{self.port}"
        if self._proxied_port:
            listeners += f",PROXIED://127.0.0.1:{self._proxied_port}"
            advertised += f",PROXIED://127.0.0.1:{self._proxy_port}"
        return _SETTINGS.format(
            listeners=listeners, advertised=advertised, controller=self._controller,
            logs=(self.disk.at if self.disk else self.data) / "logs",
        )  # fmt: skip

    def wait_ready(self, deadline_s: float = 240.0) -> None:
        """Return once the broker answers a metadata request with itself in it."""
        assert self.child is not None
        self.child.wait_ready(self.answers, deadline_s)

    def answers(self) -> bool:
        """Whether a Kafka client gets metadata from it now."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.5).close()
        except OSError:
            return False
        return metadata_answers(self.bootstrap)

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL, as if the machine had lost it."""
        if self.child:
            self.child.kill()

    def stop(self) -> None:
        if self.child:
            self.child.stop()

    def _java(self) -> list[str]:
        java, major = find_java()
        options = [
            "-Xms128m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.data / 'log4j2.properties'}",
        ]
        if major >= 23:
            # Kafka 4.1 unmaps files by a method that newer JVMs warn about on every start
            options.append("--sun-misc-unsafe-memory-access=allow")
        enter = self.disk.enter() if self.disk else []
        return [*enter, str(java), *options, "-cp", f"{self.jars}/*"]

    def _env(self) -> dict[str, str]:
        hidden = ("JAVA_TOOL_OPTIONS", "CLASSPATH", "KAFKA_OPTS", "KAFKA_HEAP_OPTS")
        return {k: v for k, v in os.environ.items() if k not in hidden}

    def _format(self, settings: Path) -> None:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "x")
        done = subprocess.run(
            [
                *self._java(), "kafka.tools.StorageTool",
                "format", "-t", cluster, "-c", str(settings),
            ],
            env=self._env(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise StackError(f"Kafka could not format {self.data}:\n{done.stdout}{done.stderr}")
