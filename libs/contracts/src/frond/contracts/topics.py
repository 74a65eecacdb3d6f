"""Every topic, declared once: name, partitions, retention, cleanup.

Partition counts of ``detected`` and ``imaged`` are those of the aggregator's tables; nothing is
co-partitioned with the public ``uploaded`` topic, because librdkafka and the Java client place
keys differently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_DAY_MS: Final = 24 * 3600 * 1000

MAX_MESSAGE_BYTES: Final = 2 << 20
"""The most that we ever send in one Kafka message: twice what topics take but the dead-letter topic,
so that a dead letter fits around whatever a topic took."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's declaration.

    Attributes:
        name: the public name, without the installation's prefix.
        partitions: how many; raising it later is safe only for topics without a table.
        table: whether a table of the aggregator is placed as its keys are.
        retention_ms: how long an event is kept; -1 for ever.
        compacted: whether only the newest event of each key is kept.
        public: whether programs outside Frond may rely on it.
        about: one line for the AsyncAPI document.
    """

    name: str
    partitions: int
    retention_ms: int = 7 * _DAY_MS
    compacted: bool = False
    public: bool = False
    table: bool = False
    about: str = ""
    config: dict[str, str] = field(default_factory=dict)

    def named(self, prefix: str = "") -> str:
        """The name on the broker of an installation with this prefix."""
        return prefix + self.name

    def settings(self) -> dict[str, str]:
        """Kafka topic settings, as the admin API takes them."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(MAX_MESSAGE_BYTES // 2),
            # whatever a publisher compresses with, every reader can read it, and what is small on
            # the way in cannot grow in a reader's memory: the broker unpacks it, then measures
            "compression.type": "uncompressed",
            **self.config,
        }


UPLOADED: Final = Topic(
    "frond.uploaded.v1", 8, public=True, about="One event an image; a job is sealed here too."
)
TILED: Final = Topic("frond.tiled.v1", 16, public=True, about="One event a chunk of windows.")
DETECTED: Final = Topic(
    "frond.detected.v1",
    8,
    public=True,
    table=True,
    about="One event a chunk's result, or a rejection.",
)
IMAGED: Final = Topic(
    "frond.imaged.v1", 8, table=True, about="One event an image that is done, keyed by job."
)
STATUS: Final = Topic(
    "frond.status.v1",
    8,
    retention_ms=-1,
    compacted=True,
    public=True,
    about="The newest snapshot of each job; a message without a value and headers: it was deleted.",
)
COMPLETED: Final = Topic(
    "frond.completed.v1",
    8,
    retention_ms=30 * _DAY_MS,
    public=True,
    about="One self-contained event a job.",
)
DRIFT: Final = Topic(
    "frond.drift.v1",
    4,
    retention_ms=90 * _DAY_MS,
    public=True,
    about="How a model's live windows compare with its training data, period by period.",
)
TRAINING: Final = Topic(
    "frond.training.v1",
    4,
    retention_ms=30 * _DAY_MS,
    about="One event a training run that was asked for; where it stands is told by the store.",
)
DEADLETTER: Final = Topic(
    "frond.deadletter.v1", 4, retention_ms=30 * _DAY_MS, about="What could not be read, and why.",
    config={"max.message.bytes": str(MAX_MESSAGE_BYTES)},
)  # fmt: skip

ALL: Final[tuple[Topic, ...]] = (
    UPLOADED,
    TILED,
    DETECTED,
    IMAGED,
    STATUS,
    COMPLETED,
    DRIFT,
    TRAINING,
    DEADLETTER,
)
