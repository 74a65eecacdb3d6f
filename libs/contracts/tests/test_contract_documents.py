"""The committed contract documents and the types are one, and stay compatible."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from frond.contracts import export
from frond.contracts.carried import CARRIES, EVENTS
from frond.contracts.compat import breaks
from frond.contracts.envelope import decode, encode
from frond.contracts.golden import GOLDEN
from frond.contracts.topics import ALL

ROOT = Path(__file__).parents[3] / "contracts"
FROZEN = ROOT / "frozen/1.0"
# before there were bounds; what was frozen later, all that is sent, has them
LATER_BOUNDS = re.compile(r": (pattern|(max|min|exclusiveM)\w+) None became ")
RECORDED = sorted((ROOT / "golden").glob("*.json"))


def test_the_committed_documents_are_those_of_the_types() -> None:
    """`make contracts` was run: nothing differs from what the types give."""
    assert export.main([str(ROOT), "--check"]) == 0


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.stem)
def test_every_recorded_event_is_still_read(path: Path) -> None:
    """An event recorded once is read by every later version, with nothing lost."""
    recorded = json.loads(path.read_text())
    event = EVENTS[recorded["ce_type"]].model_validate(recorded["data"])
    again = json.loads(event.model_dump_json(exclude_none=True))
    assert _contains(again, recorded["data"])


def test_every_event_has_a_recorded_example() -> None:
    """No event type goes without a golden example, and each example is on disk."""
    assert {e.TYPE for e in GOLDEN.values()} == set(EVENTS)
    assert {p.stem for p in RECORDED} >= set(GOLDEN)


@pytest.mark.parametrize("label", GOLDEN)
def test_events_survive_the_wire(label: str) -> None:
    """Encoded and decoded on each topic that carries it, an event is the same, and its id too."""
    event = GOLDEN[label]
    for topic in (t for t in ALL if type(event) in CARRIES[t.name]):
        message = encode(event, source="/test")
        back = decode(topic, message.value, message.headers)
        assert back.event == event
        assert dict(message.headers)["ce_id"] == back.event.event_id.encode()


@pytest.mark.parametrize("label", GOLDEN)
def test_examples_fit_their_schema(label: str) -> None:
    """What we send validates against the published schema."""
    event = GOLDEN[label]
    data = json.loads(event.model_dump_json(exclude_none=True))
    jsonschema.validate(data, json.loads((ROOT / f"schemas/{event.TYPE}.input.json").read_text()))


def test_a_removed_or_newly_required_field_is_a_break() -> None:
    """The compatibility check sees what would break a subscriber or a publisher."""
    old = {"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}
    assert not breaks(old, {**old, "properties": {**old["properties"], "c": {"type": "string"}}})
    assert breaks(old, {"properties": {"a": {"type": "string"}}, "required": ["a"]})
    assert breaks(old, {**old, "required": ["a", "b"]})
    assert breaks(old, {**old, "properties": {**old["properties"], "b": {"type": "string"}}})
    assert breaks({"enum": ["x", "y"]}, {"enum": ["x"]})
    assert not breaks({"enum": ["x"]}, {"enum": ["x", "y"]})
    assert breaks({"type": "string"}, {"type": "string", "enum": ["x"]})
    assert breaks({"type": "string"}, {"type": "string", "const": "x"})
    assert not breaks({"const": "x"}, {"enum": ["x", "y"]})


NULL = {"type": "null"}
TEXT = {"type": "string", "maxLength": 1024}
ENOUGH = {"type": "integer", "minimum": 1, "maximum": 9}
MAYBE = {"anyOf": [TEXT, NULL]}
EITHER = {"anyOf": [TEXT, ENOUGH, NULL]}
LIST = {"type": "array", "items": ENOUGH}
COUNTS = {"type": "object", "additionalProperties": ENOUGH}
OPEN = {"type": "object"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TEXT, MAYBE), (TEXT, {"type": "string", "maxLength": 2048}), (TEXT, {"type": "string"}),
        (ENOUGH, {**ENOUGH, "minimum": 0, "maximum": 10}), (EITHER, EITHER), (LIST, LIST),
        (COUNTS, COUNTS), (OPEN, {**OPEN, "additionalProperties": True}),
        ({**OPEN, "additionalProperties": False}, OPEN), ({**OPEN, "required": ["a"]}, OPEN),
        (EITHER, {"anyOf": [NULL, ENOUGH, TEXT]}),
    ],
)  # fmt: skip
def test_what_takes_as_much_as_before_is_no_break(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Null beside what is taken, bounds that widen, alternatives in another order break nobody."""
    assert breaks(old, new) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TEXT, {"anyOf": [ENOUGH, NULL]}), (TEXT, {"anyOf": [TEXT, ENOUGH]}),
        (MAYBE, {"anyOf": [ENOUGH, NULL]}), (MAYBE, TEXT), (MAYBE, {"anyOf": [TEXT]}), (MAYBE, {}),
        (MAYBE, EITHER), (EITHER, MAYBE),
        (MAYBE, {"anyOf": [{"type": "string", "maxLength": 10}, NULL]}),
        (EITHER, {"anyOf": [TEXT, {**ENOUGH, "minimum": 2}, NULL]}),
        (TEXT, {**TEXT, "maxLength": 10}), ({"type": "string"}, TEXT), (TEXT, {**TEXT, "pattern": "^x"}),
        (TEXT, {**TEXT, "format": "uri"}), ({}, {"type": "string"}), ({}, {"$ref": "#/$defs/X"}),
        (TEXT, {**TEXT, "minLength": 1}), (ENOUGH, {**ENOUGH, "minimum": 2}),
        (ENOUGH, {**ENOUGH, "exclusiveMinimum": 0}), (ENOUGH, {**ENOUGH, "exclusiveMaximum": 9}),
        (LIST, {**LIST, "minItems": 1}), (LIST, {**LIST, "maxItems": 1}), (LIST, {"type": "array"}),
        (LIST, {**LIST, "items": TEXT}), ({"type": "array"}, LIST),
        (COUNTS, {**COUNTS, "additionalProperties": TEXT}), (COUNTS, OPEN),
        (COUNTS, {**COUNTS, "additionalProperties": False}), (OPEN, COUNTS),
        (OPEN, {**OPEN, "additionalProperties": False}),
        ({"$defs": {"X": MAYBE}}, {"$defs": {"X": TEXT}}),
    ],
)  # fmt: skip
def test_what_takes_less_than_before_is_a_break(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Null that is taken no more, another alternative, a narrower bound, pattern or value, at any depth."""
    assert breaks(old, new)
    assert breaks({"properties": {"a": {"items": old}}}, {"properties": {"a": {"items": new}}})


def test_what_was_always_sent_is_sent_always() -> None:
    """A property that subscribers could rely on and that need not be there any more breaks them; publishers
    may leave it out."""
    old = {"properties": {"a": TEXT}, "required": ["a"]}
    assert breaks(old, {"properties": {"a": TEXT}}, sent=True)
    assert breaks({"$defs": {"X": old}}, {"$defs": {"X": {"properties": {"a": TEXT}}}}, sent=True)
    assert not breaks(old, {"properties": {"a": TEXT}})


@pytest.mark.parametrize("name", EVENTS)
def test_nothing_breaks_the_publishers_of_release_1(name: str) -> None:
    """Against the schemas frozen at 1.0, today's remove nothing and demand nothing new of who sends."""
    frozen = json.loads((FROZEN / f"{name}.input.json").read_text())
    told = breaks(frozen, export.input_schema(EVENTS[name]))
    assert [line for line in told if not LATER_BOUNDS.search(line)] == []


@pytest.mark.parametrize("name", EVENTS)
def test_nothing_breaks_the_subscribers_of_release_1(name: str) -> None:
    """Against what was sent at 1.0, today's has all that was always there, of the types and bounds that it
    had: of the bounds, publishers are promised them here, too."""
    frozen = json.loads((FROZEN / f"{name}.json").read_text())
    assert breaks(frozen, export.schema(EVENTS[name]), sent=True) == []


def test_every_frozen_type_is_there() -> None:
    """No event type of 1.0 goes, and none of today's is without a frozen schema of both kinds."""
    kinds = {p.name for p in FROZEN.glob("*.json")}
    assert kinds == {f"{name}{kind}.json" for name in EVENTS for kind in ("", ".input")}


def _contains(new: Any, old: Any) -> bool:
    if isinstance(old, dict):
        return isinstance(new, dict) and all(
            k in new and _contains(new[k], v) for k, v in old.items()
        )
    if isinstance(old, list):
        return len(new) == len(old) and all(map(_contains, new, old))
    return bool(new == old)
