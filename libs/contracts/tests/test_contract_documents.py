"""The committed contract documents and the types are one, and stay compatible."""

from __future__ import annotations

import json
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
FROZEN = [p.name.removesuffix(".input.json") for p in sorted((ROOT / "frozen/1.0").glob("*.json"))]
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
    assert not breaks({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]})
    assert breaks({"type": "string"}, {"anyOf": [{"type": "integer"}, {"type": "null"}]})
    assert breaks({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "integer"}]})


@pytest.mark.parametrize("name", FROZEN)
def test_nothing_breaks_the_publishers_and_subscribers_of_release_1(name: str) -> None:
    """Against the schemas frozen at 1.0, today's remove nothing and demand nothing new."""
    assert len(FROZEN) == 10
    frozen = json.loads((ROOT / "frozen" / "1.0" / f"{name}.input.json").read_text())
    assert breaks(frozen, export.input_schema(EVENTS[name])) == []


def _contains(new: Any, old: Any) -> bool:
    if isinstance(old, dict):
        return isinstance(new, dict) and all(
            k in new and _contains(new[k], v) for k, v in old.items()
        )
    if isinstance(old, list):
        return len(new) == len(old) and all(map(_contains, new, old))
    return bool(new == old)
