"""Events of an older and of a newer schema, at every consumer.

What was frozen as 1.0 is handled; what a newer version adds is ignored where it may be, and where
it may not, the message becomes a dead letter that says why.
"""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts import topics
from frond.contracts.carried import CARRIES, EVENTS
from frond.contracts.envelope import decode
from frond.contracts.errors import UnreadableEvent
from frond.contracts.topics import Topic
from fuzz.consumers import CONSUMERS
from fuzz.raw import GOLDEN, Raw, pack

FROZEN = Path(__file__).parents[2] / "contracts" / "frozen" / "1.0"
_SCHEMAS = {
    p.name.removesuffix(".input.json"): json.loads(p.read_text())
    for p in FROZEN.glob("*.input.json")
}
_CARRIED = [(t, c.TYPE) for t in topics.ALL for c in CARRIES[t.name]]
_GOLDEN = {
    r["ce_type"]: r["data"] for r in (json.loads(p.read_text()) for p in sorted(GOLDEN.glob("*.json")))
}  # fmt: skip


def _handled(topic: Topic, data: bytes) -> None:
    for name, (target, read) in CONSUMERS.items():
        if topic in read:
            target(bytes([read.index(topic)]) + data if name == "readmodel" else data)


def _message(ce_type: str, value: Any, *more: tuple[str, bytes]) -> Raw:
    return Raw(json.dumps(value).encode(), b"k", (("ce_type", ce_type.encode()), *more))


def _frozen(schema: dict[str, Any], root: dict[str, Any], golden: Any, rng: random.Random) -> Any:
    """A value of the frozen schema: the golden one's, with what need not be there left to chance."""
    if "$ref" in schema:
        return _frozen(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, golden, rng)
    if isinstance(golden, dict) and "properties" in schema:
        needed = set(schema.get("required", []))
        return {
            k: _frozen(v, root, golden[k], rng) for k, v in schema["properties"].items()
            if k in golden and (k in needed or rng.random() < 0.6)
        }  # fmt: skip
    return golden


def test_every_type_was_frozen() -> None:
    """Each event type of today has the schema that publishers of 1.0 keep to."""
    assert set(_SCHEMAS) == set(EVENTS)


@pytest.mark.parametrize(("topic", "ce_type"), _CARRIED, ids=lambda x: getattr(x, "name", x))
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_events_of_1_0_are_taken(topic: Topic, ce_type: str, seed: int) -> None:
    """With all of 1.0's fields, or with few more than the required ones, an event is an event."""
    schema = _SCHEMAS[ce_type]
    value = _frozen(schema, schema, _GOLDEN[ce_type], random.Random(seed))
    if ce_type == "frond.job.completed.v1":
        # the ledger in it has to close
        value["images"] = _GOLDEN[ce_type]["images"]
    message = _message(ce_type, value)
    assert ce_type == type(decode(topic, message.value, message.headers).event).TYPE
    _handled(topic, pack([message]))


@pytest.mark.parametrize(("topic", "ce_type"), _CARRIED, ids=lambda x: getattr(x, "name", x))
@settings(max_examples=3, deadline=None)
@given(
    fields=st.dictionaries(
        st.text(string.ascii_letters, min_size=3, max_size=9).map("new_".__add__),
        st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_fields_of_a_newer_version_are_ignored(
    topic: Topic, ce_type: str, fields: dict[str, Any]
) -> None:
    """Fields that nobody knows yet, at any depth, change nothing of what is read."""

    def grown(value: Any) -> Any:
        counted = isinstance(value, dict) and all(isinstance(v, int) for v in value.values())
        if isinstance(value, dict) and not counted:
            return {**{k: grown(v) for k, v in value.items()}, **fields}
        return [grown(v) for v in value] if isinstance(value, list) else value

    plain, new = _message(ce_type, _GOLDEN[ce_type]), _message(ce_type, grown(_GOLDEN[ce_type]))
    event = decode(topic, new.value, new.headers).event
    assert event == decode(topic, plain.value, plain.headers).event
    _handled(topic, pack([new]))


@pytest.mark.parametrize("topic", [t for t in topics.ALL if CARRIES[t.name]], ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"ce_type": "v2"}, "carries no"),
        ({"ce_type": b"frond.image.rotated.v1"}, "carries no"),
        ({"ce_specversion": b"2.0"}, "CloudEvents '2.0'"),
        ({"ce_type": b"\xff"}, "carries no"),
    ],
    ids=["v2", "new type", "CloudEvents 2.0", "no text"],
)
def test_what_is_too_new_is_a_dead_letter(topic: Topic, headers: dict[str, Any], told: str) -> None:
    """A type or an envelope of a version to come is refused with a sentence, and harms nothing."""
    ce_type = CARRIES[topic.name][0].TYPE
    if headers.get("ce_type") == "v2":
        headers = {"ce_type": ce_type.replace(".v1", ".v2").encode()}
    made = tuple({"ce_type": ce_type.encode(), **headers}.items())
    message = Raw(json.dumps(_GOLDEN[ce_type]).encode(), b"k", made)
    with pytest.raises(UnreadableEvent, match=told):
        decode(topic, message.value, message.headers)
    _handled(topic, pack([message]))


@pytest.mark.parametrize(
    ("ce_type", "where"),
    [
        ("frond.image.rejected.v1", ("reason",)),
        ("frond.job.status.v1", ("status",)),
        ("frond.image.finished.v1", ("outcome", "status")),
    ],
)
def test_values_of_a_newer_version_are_told_of(ce_type: str, where: tuple[str, ...]) -> None:
    """A value that an enumeration has gained since is named in the dead letter."""
    value = json.loads(json.dumps(_GOLDEN[ce_type]))
    holder = value
    for step in where[:-1]:
        holder = holder[step]
    holder[where[-1]] = "something-new"
    message = _message(ce_type, value)
    topic = next(t for t, c in _CARRIED if c == ce_type)
    with pytest.raises(UnreadableEvent, match=re_dotted(where)):
        decode(topic, message.value, message.headers)
    _handled(topic, pack([message]))


def re_dotted(where: tuple[str, ...]) -> str:
    return r"\.".join(where)
