"""``frond dlq`` on a real broker: whatever lies on the topic, every letter can be seen and dealt with."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from typer.testing import CliRunner, Result

from frond.bus import EventProducer, ensure_topics
from frond.bus.deadletter import DeadLetter
from frond.client.cli import app
from frond.contracts import topics
from frond.contracts.envelope import Headers
from frond.contracts.topics import Topic

runner = CliRunner()
pytestmark = pytest.mark.stack

Raw = tuple[bytes | None, bytes | None, Headers]


class Installation:
    """Its topics, and the command that goes by them."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap, self.prefix = bootstrap, prefix

    def fill(self, *messages: DeadLetter | Raw) -> None:
        """Send letters, or any messages, to the dead-letter topic."""

        async def send() -> None:
            producer = EventProducer(self.bootstrap, self.prefix, "/test")
            await producer.start()
            for m in messages:
                raw = (m.key, m.value, m.to_headers()) if isinstance(m, DeadLetter) else m
                await producer.send_raw(topics.DEADLETTER, *raw)
            await producer.stop()

        asyncio.run(send())

    def on(self, topic: Topic) -> list[tuple[bytes | None, bytes | None, Headers]]:
        """All that lies on a topic."""

        async def read() -> list[Any]:
            consumer = AIOKafkaConsumer(
                topic.named(self.prefix), bootstrap_servers=self.bootstrap,
                auto_offset_reset="earliest",
            )  # fmt: skip
            await consumer.start()
            try:
                partitions = sorted(consumer.assignment())
                ends = await consumer.end_offsets(partitions)
                found: list[Any] = []
                async with asyncio.timeout(30):
                    while len(found) < sum(ends.values()):
                        got = await consumer.getmany(timeout_ms=200)
                        found += [m for messages in got.values() for m in messages]
                return [(m.key, m.value, list(m.headers)) for m in found]
            finally:
                await consumer.stop()

        return asyncio.run(read())

    def dlq(self, *words: str, code: int = 0, answer: str | None = None) -> Result:
        done = runner.invoke(app, ["dlq", *words], input=answer)
        assert done.exit_code == code, (words, done.output, done.exception)
        return done

    def listed(self, *words: str) -> dict[str, Any]:
        """What ``list --json`` tells, by id."""
        return {x["id"]: x for x in json.loads(self.dlq("list", "--json", *words).stdout)}


@pytest.fixture
def here(
    service_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Installation:
    for name in list(os.environ):
        if name.startswith("FROND_"):
            monkeypatch.delenv(name)
    for name in ("FROND_KAFKA_BOOTSTRAP", "FROND_TOPIC_PREFIX"):
        monkeypatch.setenv(name, service_env[name])
    monkeypatch.chdir(tmp_path)
    made = Installation(service_env["FROND_KAFKA_BOOTSTRAP"], service_env["FROND_TOPIC_PREFIX"])
    asyncio.run(ensure_topics(made.bootstrap, made.prefix))
    return made


def letter(number: int, **more: Any) -> DeadLetter:
    made = DeadLetter(
        topic=topics.UPLOADED.name, partition=0, offset=number, group="frond.tiler",
        reason="bad-request", detail="the value is not JSON", trace_id="", attempts=1,
        time=f"2026-01-02T03:04:{number:02}Z", key=b"k", value=f"bad {number}".encode() + b"\xfe",
        headers=[("a", b"\xff")],
    )  # fmt: skip
    return replace(made, **more)


def test_listed_shown_replayed_dropped(here: Installation) -> None:
    """Replayed as they were; what was dealt with is out of the list."""
    letters = [letter(n) for n in range(3)]
    here.fill(*letters)
    found = here.listed()
    assert list(found) == [x.id for x in letters]
    assert "value" not in found[letters[0].id] and found[letters[0].id]["attempts"] == 1
    assert "attempts" in here.dlq("list").stdout
    assert json.loads(here.dlq("show", letters[0].id, "--json").stdout)["value"] == "bad 0\\xfe"
    here.dlq("replay", letters[0].id)
    here.dlq("drop", letters[1].id)
    assert list(here.listed()) == [letters[2].id]
    assert [x["mark"] for x in here.listed("--all").values()] == ["replayed", "dropped", None]
    assert here.on(topics.UPLOADED) == [(b"k", b"bad 0\xfe", [("a", b"\xff")])]


def test_the_senders_headers_hide_nothing(here: Installation) -> None:
    """A message that has our headers, a tombstone too, is a letter like others: listed, shown with each
    of its headers, and sent again with them."""
    headers = [
        ("dlq_mark", b"replayed"), ("dlq_id", b"\xff"), ("x", b"1"), ("x", b"2"), ("dlq_mine", b"y"),
    ]  # fmt: skip
    own = [letter(0, headers=headers), letter(1, headers=headers, value=None, key=None)]
    here.fill(*own)
    assert list(here.listed()) == [x.id for x in own]
    for x in own:
        shown = json.loads(here.dlq("show", x.id, "--json").stdout)
        assert shown["headers"] == [
            ["dlq_mark", "replayed"], ["dlq_id", "\\xff"], ["x", "1"], ["x", "2"], ["dlq_mine", "y"],
        ]  # fmt: skip
        told = here.dlq("show", x.id).stdout
        assert "x: 1\n" in told and "x: 2\n" in told and "dlq_mine: y\n" in told
    here.dlq("replay", *(x.id for x in own))
    sent = here.on(topics.UPLOADED)
    assert all(m[2] == headers for m in sent) and {m[1] for m in sent} == {own[0].value, None}
    assert [x["mark"] for x in here.listed("--all").values()] == ["replayed"] * 2


def test_rubbish_on_the_topic_stops_no_command(here: Installation) -> None:
    """What others put there: ids that are no text, marks with a value or of a letter."""
    mine = letter(3)
    here.fill(
        mine,
        (None, None, [("dlq_mark", b"dropped"), ("dlq_id", b"\xff\xfe")]),
        (b"k", b"v", [("dlq_mark", b"\xff"), ("dlq_id", mine.id.encode())]),
        (None, None, [("dlq_mark", b"dropped"), ("dlq_id", mine.id.encode()), ("dlq_topic", b"t")]),
        (None, None, [("dlq_offset", b"5")]),
    )
    assert mine.id in here.listed() and len(here.listed()) == 4
    for one in here.listed():
        here.dlq("show", one)
    assert "no topic of Frond" in here.dlq("replay", *here.listed(), code=2).stderr
    assert here.on(topics.UPLOADED) == []
    here.dlq("drop", *here.listed())
    assert here.listed() == {}


def test_several_at_once(here: Installation) -> None:
    """One call for many; where one is not there, nothing is done."""
    letters = [letter(n) for n in range(5)]
    here.fill(*letters)
    ids = [x.id for x in letters]
    assert "no dead letter 0123" in here.dlq("replay", ids[0], "0123", code=2).stderr
    assert here.on(topics.UPLOADED) == [] and len(here.listed()) == 5
    told = here.dlq("replay", *ids[:3], ids[0]).stdout
    assert "3 dead letters replayed." in told and told.count("again.") == 3
    assert {m[1] for m in here.on(topics.UPLOADED)} == {x.value for x in letters[:3]}
    assert "2 dead letters dropped." in here.dlq("drop", *ids[3:]).stdout
    assert here.listed() == {}


def test_by_reason_and_topic(here: Installation) -> None:
    """What nobody has dealt with yet, counted and confirmed; names or a choice, not both."""
    mended = [letter(n, reason="internal") for n in range(3)]
    tiled = letter(4, topic=topics.TILED.name, reason="internal")
    other = letter(5)
    here.fill(*mended, tiled, other)
    here.dlq("drop", mended[0].id)
    of_it = ["--reason", "internal", "--topic", topics.UPLOADED.name]
    assert list(here.listed(*of_it)) == [x.id for x in mended[1:]]
    for words in ([], [other.id, *of_it]):
        assert "Name letters" in here.dlq("replay", *words, code=2).stderr
    told = here.dlq("replay", *of_it, answer="n\n", code=1).stdout
    assert "Replay 2 dead letters?" in told and here.on(topics.UPLOADED) == []
    assert "2 dead letters replayed." in here.dlq("replay", *of_it, answer="y\n").stdout
    assert {m[1] for m in here.on(topics.UPLOADED)} == {x.value for x in mended[1:]}
    assert "0 dead letters replayed." in here.dlq("replay", *of_it, "--yes").stdout
    for verb in ("replay", "drop"):
        told = here.dlq(verb, "--reason", "nope", "--topic", topics.UPLOADED.name, code=2).stderr
        assert f"No dead letter has the reason nope and the topic {topics.UPLOADED.name};" in told
    assert "1 dead letter dropped." in here.dlq("drop", "--reason", "internal", "--yes").stdout
    assert list(here.listed()) == [other.id]


def test_a_terminal_obeys_no_letter(here: Installation) -> None:
    """What steers is shown; in JSON it is as it was."""
    evil = letter(
        0, detail="no \x1b[2J\nlike \u202e", key=b"\x1b]0;x\x07", value=b"\x9b\xc2\x9b\x1b[31m\n  mark  x",
        headers=[("\x1b[1m", b"\x1bc\nmark")],
    )  # fmt: skip
    here.fill(evil)
    for told in (here.dlq("list").stdout, here.dlq("show", evil.id).stdout):
        assert "\x1b" not in told and "\x9b" not in told and "\u202e" not in told
        assert "\\x1b[2J\\x0a" in told
    assert not any(x.startswith("  mark") for x in told.splitlines()[2:])
    assert json.loads(here.dlq("show", evil.id, "--json").stdout)["detail"] == evil.detail
