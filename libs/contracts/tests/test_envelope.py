"""Any bytes on any topic: an event, or UnreadableEvent; nothing else."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.contracts import topics
from frond.contracts.carried import CARRIES, EVENTS
from frond.contracts.envelope import _read, _read_at_once, decode, encode
from frond.contracts.errors import UnreadableEvent
from frond.contracts.events import ImageUploaded, JobSealed
from frond.contracts.golden import GOLDEN

json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


def test_the_smallest_message_is_an_uploaded_image() -> None:
    """The design's tiny message needs no headers."""
    got = decode(
        topics.UPLOADED, b'{"job_id": "survey-7", "image": "s3://bucket/key.tif", "job_size": 3}'
    )
    assert got.event == ImageUploaded(job_id="survey-7", image="s3://bucket/key.tif", job_size=3)


def test_a_bare_seal_needs_no_headers_either() -> None:
    """A publisher that has no headers can seal its job."""
    assert decode(topics.UPLOADED, b'{"job_id":"a","job_size":7}').event == JobSealed(
        job_id="a", job_size=7
    )


def test_other_topics_want_the_type_header() -> None:
    """Only the ingest topic takes bare messages."""
    with pytest.raises(UnreadableEvent, match="ce_type"):
        decode(topics.COMPLETED, b"{}")


def test_a_type_of_another_topic_is_refused() -> None:
    """A completed event on the ingest topic is a mistake, not a job."""
    with pytest.raises(UnreadableEvent, match="carries no"):
        decode(topics.UPLOADED, b"{}", [("ce_type", b"frond.job.completed.v1")])


@pytest.mark.parametrize(
    "value",
    [None, b"", b"\xff", b"[]", b"1", b"{}", b'{"job_id": "../x", "image": "s3://b/k"}',
     b'{"job_id": "x", "image": "file:///etc/passwd"}', b"[" * 100_000,
     b'{"job_id":"x","image":"s3://bucket/k\\u0000.tif"}', b'{"job_id":"x","image":"s3://bucket/a//b"}',
     b'{"job_id":"x","image":"s3://bucket/a/../b"}', b'{"job_id":"x","image":"s3://bucket/\\ud800"}',
     b'{"job_id":"x","image":"s3://bucket/k","name":"' + b"n" * 2000 + b'"}'],
)  # fmt: skip
def test_bad_messages_say_what_is_wrong(value: bytes | None) -> None:
    """Bytes that are no event raise UnreadableEvent with a sentence."""
    with pytest.raises(UnreadableEvent, match=r"\w"):
        decode(topics.UPLOADED, value)


_BARE = b'{"job_id":"a","image":"s3://bucket/k.tif"}'


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"", "is empty"),
        (b"\x00\x00\x00\x00\x07" + _BARE, "schema registry"),
        (gzip.compress(_BARE, mtime=0), "compression.type"),
        (b'{"specversion":"1.0","type":"x","data":' + _BARE + b"}", "structured mode"),
        (b'{"job_id":"a","images":["s3://bucket/k.tif"]}', "neither a field image nor"),
        (b'{"job_id":"Flight 7","image":"s3://bucket/k.tif"}', "1 to 128 letters"),
        (b'{"job_id":"a","image":"s3://bucket/k.tif","thresholds":[]}', "should be an object"),
        (b'{"job_id":"a","job_size":true}', "a number of images"),
    ],
)
def test_common_mistakes_are_told_as_what_they_are(value: bytes, told: str) -> None:
    """Whoever reads the dead letter knows what to change in the sender, in no parser's words."""
    with pytest.raises(UnreadableEvent, match=told):
        decode(topics.UPLOADED, value)


def test_null_is_as_good_as_nothing() -> None:
    """Serializers that write every field write null for those that are not set."""
    optional = {n: None for n, f in ImageUploaded.model_fields.items() if not f.is_required()}
    value = json.dumps({**json.loads(_BARE), **optional}).encode()
    assert decode(topics.UPLOADED, value).event == decode(topics.UPLOADED, _BARE).event
    seal = {**optional, "job_id": "a", "image": None, "job_size": 7}
    told = decode(topics.UPLOADED, json.dumps(seal).encode()).event
    assert told == JobSealed(job_id="a", job_size=7)
    with pytest.raises(UnreadableEvent, match="neither a field image nor"):
        decode(topics.UPLOADED, b'{"job_id":"a","image":null,"job_size":null}')


def test_an_empty_text_is_as_good_as_null() -> None:
    """Go and Protobuf write "" for a text that is not set: no model, no tenant of that name."""
    texts = ("name", "sha256", "model", "webhook_url", "email", "tenant", "shadow")
    value = json.dumps({**json.loads(_BARE), **dict.fromkeys(texts, "")}).encode()
    assert decode(topics.UPLOADED, value).event == decode(topics.UPLOADED, _BARE).event
    named = [("ce_type", ImageUploaded.TYPE.encode())]
    assert decode(topics.UPLOADED, value, named).event == decode(topics.UPLOADED, _BARE).event


@given(st.sampled_from(topics.ALL), st.sampled_from([*EVENTS, "", "x"]), st.binary(max_size=200))
def test_any_bytes(topic: topics.Topic, kind: str, value: bytes) -> None:
    """No bytes make decode raise anything but UnreadableEvent."""
    with contextlib.suppress(UnreadableEvent):
        decode(topic, value, [("ce_type", kind.encode()), ("traceparent", value)])


@given(st.sampled_from(topics.ALL), st.sampled_from([*EVENTS]), json_values)
def test_any_json(topic: topics.Topic, kind: str, value: object) -> None:
    """No JSON does either."""
    with contextlib.suppress(UnreadableEvent):
        decode(topic, json.dumps(value).encode(), [("ce_type", kind.encode())])


@given(
    st.sampled_from(sorted(GOLDEN)),
    st.lists(st.tuples(st.integers(0, 99), json_values), max_size=3),
)
def test_a_value_read_at_once_is_the_value_read_with_care(
    name: str, changes: list[tuple[int, object]]
) -> None:
    """Parsing and validating in one go takes nothing that the judging way refuses, and reads the
    same out of it, whatever stands where."""
    event = GOLDEN[name]
    data = json.loads(event.model_dump_json(exclude_none=True))
    for where, value in changes:
        _plant(data, where, value)
    topic = next(t for t in topics.ALL if type(event) in CARRIES.get(t.name, ()))
    head, raw = {"ce_type": event.TYPE}, json.dumps(data).encode()
    at_once = _read_at_once(topic, head, raw)
    if at_once is not None:
        assert at_once == _read(topic, head, raw)
    elif not changes:
        raise AssertionError(f"{name} is not read at once")


def _plant(data: Any, where: int, value: object) -> None:
    """Put a value into some place of some depth."""
    while True:
        places = list(data) if isinstance(data, dict) else list(range(len(data)))
        if not places:
            return
        where, at = divmod(where, len(places))
        inner = data[places[at]]
        if not where or not isinstance(inner, dict | list):
            data[places[at]] = value
            return
        data = inner


@pytest.mark.parametrize(
    "value",
    [
        b'{"job_id":"a","image":"s3://bucket/k.tif","job_id":"b"}',
        b'{"job_id":"a","image":"s3://bucket/k.tif","job_size":7.0}',
        b'{"job_id":"a","image":"s3://bucket/k.tif","x":NaN}',
        b'{"job_id":"a","image":"s3://bucket/k.tif","x":"\\ud800"}',
        b'{"job_id":"a","image":"s3://bucket/k.tif","x":' + b"9" * 5000 + b"}",
        '{"job_id":"a","image":"s3://bucket/k.tif"}'.encode("utf-16"),
    ],
)
def test_odd_json_is_read_one_way(value: bytes) -> None:
    """A field that comes twice, numbers of another kind, what is ignored: the careful way's word."""
    at_once = _read_at_once(topics.UPLOADED, {"ce_type": ImageUploaded.TYPE}, value)
    if at_once is not None:
        assert at_once == _read(topics.UPLOADED, {"ce_type": ImageUploaded.TYPE}, value)


def test_a_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is read: not the reader's own zone."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        got = decode(topics.UPLOADED, _BARE, [("ce_time", b"2026-01-02T03:04:05")])
        assert got.time is not None
        assert got.time.timestamp() == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_unknown_fields_of_a_newer_sender_are_ignored() -> None:
    """A newer publisher's extra fields break no reader of today."""
    value = b'{"job_id":"a","image":"s3://bucket/k.tif","colour":"green"}'
    assert isinstance(decode(topics.UPLOADED, value).event, ImageUploaded)


def test_a_sent_twice_event_has_one_id() -> None:
    """The CloudEvents id comes from what happened, not from when it was sent."""
    event = ImageUploaded(job_id="a", image="s3://bucket/k.tif")
    first, second = (dict(encode(event, source="/x").headers) for _ in range(2))
    assert first["ce_id"] == second["ce_id"]
