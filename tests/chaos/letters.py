"""Dead letters, each held against the rubbish that was sent: no other may be there, and none missing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from chaos.figures import Figures
from frond.bus import DeadLetter
from frond.contracts import topics
from frond.contracts.envelope import Headers, decode
from frond.contracts.errors import UnreadableEvent
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic

READERS: Final[dict[str, tuple[Topic, ...]]] = {
    "frond.tiler": (topics.UPLOADED,),
    "frond.inference": (topics.TILED,),
    "frond.aggregator": (topics.DETECTED, topics.IMAGED),
    "frond.notifier": (topics.COMPLETED,),
}
"""Who works on which topic, and buries what is no event there."""
GROUPS: Final = {t.name: group for group, read in READERS.items() for t in read}

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True)
class Letter:
    """One message on the dead-letter topic.

    Attributes:
        at: where it lies itself.
        of: where the message lay that it keeps; ``content`` is that message's digest.
        named: by the id that it should have.
    """

    at: Place
    of: Place
    content: str
    group: str
    reason: str
    detail: str
    named: bool

    @classmethod
    def read(cls, message: Any) -> Letter:
        """Of a Kafka message, whatever it holds."""
        headers: Headers = [(str(k), v or b"") for k, v in message.headers]
        told = DeadLetter.from_message(message.key, message.value, headers)
        return cls(
            (topics.DEADLETTER.name, message.partition, message.offset),
            (told.topic, told.partition, told.offset),
            content(told.key, told.value, told.headers),
            told.group, told.reason, told.detail,
            dict(headers).get("dlq_id", b"").decode("utf-8", "replace") == told.id,
        )  # fmt: skip

    def __str__(self) -> str:
        topic, partition, offset = self.of
        return f"{topic}/{partition}@{offset} of {self.group}, {self.reason}: {self.detail[:300]}"


def content(key: bytes | None, value: bytes | None, headers: Headers) -> str:
    """A message's digest."""
    return hashlib.sha256(repr((key, value, headers)).encode()).hexdigest()


@dataclass(frozen=True)
class _Sent:
    content: str
    unreadable: bool


class Rubbish:
    """What was sent that is no event of any job, by where it lies."""

    def __init__(self) -> None:
        self._sent: dict[Place, _Sent] = {}
        self._forged: set[Place] = set()
        self._judged: set[Place] = set()
        self._buried: set[Place] = set()

    def sent(
        self, topic: Topic, partition: int, offset: int, key: bytes | None, value: bytes | None,
        headers: Headers,
    ) -> None:  # fmt: skip
        """A message was sent. It must be buried if it is no event and somebody reads it."""
        place = (topic.name, partition, offset)
        if topic == topics.DEADLETTER:
            self._forged.add(place)
            return
        unreadable = topic.name in GROUPS and not _is_event(topic, value, headers)
        self._sent[place] = _Sent(content(key, value, headers), unreadable)

    def awaited(self) -> set[Place]:
        """Where those lie that must become dead letters."""
        return {place for place, sent in self._sent.items() if sent.unreadable}

    def begin_anew(self) -> None:
        """The broker has lost its topics: what lies where says nothing any more."""
        self.__init__()  # type: ignore[misc]

    def judge(self, figures: Figures, letters: Iterable[Letter]) -> None:
        """Count those that should not be there, or say the wrong thing, or are missing.

        A copy of one is no other letter. What was judged before is not judged again.
        """
        expected = self.awaited() - self._buried
        for letter in letters:
            if letter.at in self._forged or letter.at in self._judged:
                continue
            self._judged.add(letter.at)
            if wrong := self._wrong(letter):
                figures.lose(f"dead letter {wrong}: {letter}")
            else:
                self._buried.add(letter.of)
        figures.letters_expected += len(expected)
        figures.letters += len(expected & self._buried)
        for topic, partition, offset in sorted(expected - self._buried):
            figures.lose(f"no dead letter of what was sent to {topic}/{partition}@{offset}")
            # once is enough
            self._buried.add((topic, partition, offset))

    def _wrong(self, letter: Letter) -> str:
        sent = self._sent.get(letter.of)
        if sent is None:
            return "of what was no rubbish"
        if not sent.unreadable:
            return "of an event that can be read"
        if sent.content != letter.content:
            return "that keeps another message than was sent"
        if letter.group != GROUPS[letter.of[0]] or letter.reason != Reason.BAD_REQUEST:
            return "of another group or reason than it should be"
        return "" if letter.named and letter.detail else "without its id or a sentence"


def _is_event(topic: Topic, value: bytes | None, headers: Headers) -> bool:
    try:
        decode(topic, value, headers)
    except UnreadableEvent:
        return False
    return True
