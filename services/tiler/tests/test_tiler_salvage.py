from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from frond.contracts import topics
from frond.contracts.envelope import decode, encode
from frond.contracts.errors import UnreadableEvent
from frond.contracts.events import ImageRejected, JobSealed
from frond.contracts.ids import image_id
from frond.contracts.reasons import Reason
from frond.tiler.salvage import addresses, salvage

GOOD = {"job_id": "j", "image": "s3://bucket/a.tif"}


def told(data: Any, **headers: str) -> ImageRejected | None:
    """What is made of a message that the contracts do not take."""
    value = data if isinstance(data, bytes) else json.dumps(data).encode()
    head = [(k, v.encode()) for k, v in headers.items()]
    with pytest.raises(UnreadableEvent) as e:
        decode(topics.UPLOADED, value, head)
    return salvage(value, head, str(e.value))


@pytest.mark.parametrize(
    ("more", "reason", "names"),
    [
        ({"image": "http://bucket/a.tif"}, Reason.BAD_IMAGE_URI, "s3://"),
        ({"image": "s3://bucket/a//b.tif"}, Reason.BAD_IMAGE_URI, "s3://"),
        ({"image": "s3://bucket/" + "a" * 5000}, Reason.BAD_IMAGE_URI, "s3://"),
        ({"image": "s3://bucket/\ud800.tif"}, Reason.BAD_IMAGE_URI, "s3://"),
        ({"image": 5}, Reason.BAD_IMAGE_URI, "image"),
        ({"job_size": 0}, Reason.BAD_REQUEST, "job_size"),
        ({"job_size": True}, Reason.BAD_REQUEST, "a job's size is a number"),
        ({"name": 7}, Reason.BAD_REQUEST, "name"),
        ({"webhook_url": 5}, Reason.BAD_REQUEST, "webhook_url"),
        ({"name": "x\udfff", "webhook_url": "\ud800"}, Reason.BAD_REQUEST, "name"),
        ({"name": "n" * 2000}, Reason.BAD_REQUEST, "name"),
        ({"thresholds": {"score": 2}}, Reason.BAD_REQUEST, "thresholds.score"),
    ],
)
def test_what_is_wrong_is_said(more: dict[str, Any], reason: Reason, names: str) -> None:
    """A message of a known job and image is that image's rejection, naming the field."""
    no = told({**GOOD, **more})
    assert no is not None
    assert no.reason is reason
    assert names in no.detail
    assert no.image_id == image_id("j", no.image)
    assert decode(topics.DETECTED, (m := encode(no, source="/t")).value, m.headers).event == no


def test_what_is_right_is_kept() -> None:
    no = told({**GOOD, "image": "a.tif", "job_size": 3, "name": "north", "email": "a@b.c"})
    assert no is not None
    assert (no.image, no.name, no.job_size) == ("a.tif", "north", 3)
    whom = addresses(json.dumps({"email": "a@b.c", "webhook_url": 5}).encode(), no)
    assert whom is not None
    assert (whom.job_id, whom.email, whom.webhook_url, whom.tenant) == ("j", "a@b.c", None, None)
    whom = addresses(b'{"email": "a@b.c", "tenant": "acme"}', no)
    assert whom is not None and whom.tenant == "acme"
    assert addresses(b"{}", no) is None
    whom = addresses(b'{"email": "a@b.c", "webhook_url": "", "tenant": ""}', no)
    assert whom is not None
    assert (whom.webhook_url, whom.tenant) == (None, None)


def test_latin_1_is_a_rejection_too() -> None:
    """Bytes that are no UTF-8 hide the image's name, not the job that waits for it."""
    no = told('{"job_id": "j", "image": "s3://bucket/é.tif"}'.encode("latin-1"))
    assert no is not None
    assert (no.job_id, no.reason) == ("j", Reason.BAD_REQUEST)


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({"specversion": "1.0", "type": "x", "source": "/x", "id": "1", "data": GOOD}),
        "\x00\x00\x00\x00\x07" + json.dumps(GOOD),
    ],
    ids=["structured mode", "schema registry"],
)
def test_an_image_in_the_wrong_wrapping_is_a_rejection(value: str) -> None:
    """What a library has put around it hides neither job nor image, and the sender is told of it."""
    no = told(value.encode())
    assert no is not None
    assert (no.job_id, no.image, no.reason) == ("j", GOOD["image"], Reason.BAD_REQUEST)
    assert "structured mode" in no.detail or "schema registry" in no.detail


def test_long_texts_that_differ_late_are_two_images() -> None:
    a, b = (told({**GOOD, "image": "x" * 5000 + end}) for end in "ab")
    assert a is not None and b is not None
    assert a.image_id != b.image_id
    assert len(a.image) == len(b.image) == 2048


@pytest.mark.parametrize(
    "data",
    [b"", b"no JSON", b"[1]", {}, {"job_id": "j"}, {**GOOD, "job_id": "a b"}, {"image": "x"},
     {**GOOD, "image": None}, {**GOOD, "image": None, "job_size": -1}, {**GOOD, "job_id": "j\n"}, {**GOOD, "job_id": 5}, b"[" * 100_000],
)  # fmt: skip
def test_nothing_comes_of_nothing(data: Any) -> None:
    """No job that is certain, or no image: the dead letter is all there is."""
    assert told(data) is None


def test_other_events_are_no_images() -> None:
    broken = {**GOOD, "job_size": -1}
    assert told(broken, ce_type=JobSealed.TYPE) is None
    assert told(broken, ce_type=ImageRejected.TYPE) is None
    unknown = told(GOOD, ce_type="org.example.image")
    assert unknown is not None
    assert "ce_type" not in unknown.detail and "org.example.image" in unknown.detail


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = ["image", "name", "job_size", "thresholds", "webhook_url", "email", "model"]


@given(st.dictionaries(st.sampled_from(_FIELDS), _ANY | st.text(st.characters())))
@example({"image": "\ud800", "name": "\udc00"})
def test_whatever_comes_can_be_sent(data: dict[str, Any]) -> None:
    """Never an exception; what comes of it fits the contract, and is the same each time."""
    value = json.dumps({**data, "job_id": "j"}).encode()
    no = salvage(value, [], "x")
    assert no == salvage(value, [], "x")
    assert (no is not None) == (data.get("image") is not None)
    if no is not None:
        message = encode(no, source="/t")
        assert decode(topics.DETECTED, message.value, message.headers).event == no
        addresses(value, no)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(value: bytes) -> None:
    salvage(value, [("ce_type", b"\xff")], "x")
