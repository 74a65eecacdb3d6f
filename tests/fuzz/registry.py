"""Every target, and the inputs that each begins with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from frond.raster.planning import chunks_of
from fuzz.consumers import CONSUMERS, Target
from fuzz.places import model, planned
from fuzz.raw import Raw, golden, pack
from fuzz.readers import READERS

CORPUS = Path(__file__).parent / "corpus"
TARGETS: dict[str, Target] = {**{n: t for n, (t, _) in CONSUMERS.items()}, **READERS}
OF_MESSAGES = frozenset({*CONSUMERS, "deadletters"})
"""Targets whose inputs are messages, for the structural mutator."""
OF_JSON = frozenset({"plan", "objects"})


def seeds(target: str) -> list[bytes]:
    """The golden events of the target's topics, or an object as our own writer writes it."""
    if target in CONSUMERS:
        found = []
        for n, topic in enumerate(CONSUMERS[target][1]):
            prefix = bytes([n]) if target == "readmodel" else b""
            messages = golden(topic)
            if target == "inference":
                messages += [_message(e) for e in chunks_of(planned()[0])]
            if target == "aggregator_images":
                messages += [_message(e) for e in planned()[1]]
                found.append(pack(_message(e) for e in planned()[1]))
            if target == "drift":
                messages += [replace(m, value=_drifted(m.value)) for m in messages]
            found += [prefix + pack([m]) for m in messages]
            found.append(prefix + pack(messages[:8]))
        return found
    return _SEEDS[target]()


def _message(event: object) -> Raw:
    from frond.contracts.envelope import encode
    from frond.contracts.events import Event

    assert isinstance(event, Event)
    m = encode(event, source="/fuzz")
    return Raw(value=m.value, key=m.key, headers=(("ce_type", event.TYPE.encode()),))


def _drifted(value: bytes | None) -> bytes:
    """A period that asks for training."""
    return json.dumps({**json.loads(value or b""), "verdict": "drifted"}).encode()


def _arrow() -> list[bytes]:
    from frond.merge import Detections, to_ipc

    one = Detections.of([[1, 2, 30, 40], [20, 2, 60, 40]], [0.5, 0.25], [0, 1], [0, 1], [1, 3])
    return [to_ipc(one, {"plan_digest": "0" * 32}), to_ipc(Detections.empty())]


def _plan() -> list[bytes]:
    return [planned()[0].model_dump_json().encode()]


def _objects() -> list[bytes]:
    outcome = {
        "job_id": "a", "image_id": "0" * 32, "image": "s3://b/k", "name": "k",
        "status": "completed", "detections": {"palm": 1}, "windows": {"total": 1, "done": 1},
    }  # fmt: skip
    failure = {"ordinal": 0, "failed": 1, "whole": True, "reason": "corrupt", "detail": "x"}
    done = json.loads((golden_file("job-completed")).read_text())["data"]
    delivery = {
        "id": "d", "job_id": "a", "event_id": "e", "kind": "webhook", "target": "https://a.b/",
        "event": done, "next_attempt": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    spec = {
        "job_id": "a",
        "model": {"name": "palm", "digest": "0" * 64},
        "thresholds": {"score": 1},
    }
    roster = {"cancelled": False, "size": 1, "images": "AAAAAAAAAAAAAAAAAAAAAA=="}
    alias = {"digest": "0" * 64, "version": "1", "before": ["1" * 64]}
    kinds = (roster, spec, outcome, failure, delivery, alias)
    return [bytes([n]) + json.dumps(kind).encode() for n, kind in enumerate(kinds)]


def golden_file(name: str) -> Path:
    """A recorded event."""
    from fuzz.raw import GOLDEN

    return GOLDEN / f"{name}.json"


def _manifest() -> list[bytes]:
    return [v for k, v in model()[1].items() if k.endswith("model.yaml")]


def _multipart() -> list[bytes]:
    head = b'multipart/form-data; boundary="XX"\n'
    part = b'--XX\r\nContent-Disposition: form-data; name="files"; filename="a.tif"\r\n\r\nII*\r\n'
    name = b"--XX\r\nContent-Disposition: form-data; name=files; filename*=utf-8''%e2%82%ac\r\n\r\n"
    return [head + part + b"--XX--\r\n", head + part + name + b"x\r\n--XX--", head + part]


def _names() -> list[bytes]:
    return [
        b"survey-7", b"s3://frond/uploads/a/north.tif", b"../../etc/passwd", "café\\a.tif".encode(),
        b"https://user@example.org:80/hook?x#y", b"a@b.org", b"bytes=0-9", b"WzEsICJhIl0",
        b"x" * 300, b"CON.tif ", "\u0634\u0647\u0631.tif".encode() * 30,
    ]  # fmt: skip


def _deadletters() -> list[bytes]:
    from frond.bus import DeadLetter

    letter = DeadLetter(
        "t", 1, 2, "g", "bad-request", "why", "", 0, "now", b"k", b"v", [("a", b"")]
    )
    return [pack([Raw(b"v", b"k", tuple(letter.to_headers()))])]


_SEEDS = {
    "arrow": _arrow, "plan": _plan, "objects": _objects, "manifest": _manifest,
    "multipart": _multipart, "names": _names, "deadletters": _deadletters,
}  # fmt: skip
