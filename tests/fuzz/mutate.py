"""Changes to inputs that keep their structure: JSON stays JSON, an event stays nearly one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from fuzz.raw import MOST_MESSAGES, Raw, pack, unpack

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 1 << 31, 1 << 53, 1 << 63, 1 << 70, -(1 << 63), 10**400,
    0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
    "", " ", "0", "null", "\0", "\n", "\ud800", "\u202e", "..", "../../etc/passwd", "/etc/passwd",
    "s3://frond/uploads/a/north.tif", "s3://frond/../x", "s3://frond//x", "s3://other/x.tif",
    "file:///etc/passwd", "/vsicurl/http://127.0.0.1/", "s3://frond/" + "x" * 300, "é" * 200,
    "a" * 5000, "0" * 32, "f" * 32, "0" * 64, "palm-detector", "palm-detector@production",
    "survey-7", "palm@" + "0" * 64, "uint8", "float64", "object", "2026-01-02T03:04:05",
    "2026-01-02T03:04:05Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "1e400",
    "dismissed", "completed", "failed", "successful", "native", "stretch", [], {}, [[]], [0] * 1100,
    {"": 0}, {"\ud800": "x"}, {"palm": 1 << 70},
)  # fmt: skip


def mutate(rng: random.Random, data: bytes, most: int, seeds: Sequence[bytes]) -> bytes:
    """An input a few structural changes away, at most ``most`` bytes long if that can be."""
    messages = unpack(data) or [Raw(b"")]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        messages = _change(rng, messages, seeds)
    out = pack(messages[:MOST_MESSAGES])
    return out if len(out) <= most else data


def _change(rng: random.Random, messages: list[Raw], seeds: Sequence[bytes]) -> list[Raw]:
    at = rng.randrange(len(messages))
    one = messages[at]
    what = rng.randrange(12)
    if what == 0 and seeds:
        return [*messages, *unpack(rng.choice(seeds))]
    if what == 1:
        return [*messages, rng.choice(messages)]
    if what == 2 and len(messages) > 1:
        return [*messages[:at], *messages[at + 1 :]]
    if what == 3:
        rng.shuffle(messages)
        return messages
    if what == 4:
        one = replace(one, headers=_headers(rng, one.headers, seeds))
    elif what == 5:
        one = replace(one, value=rng.choice((None, b"", b"null", b"[]", b'"x"', b"\xff\xfe")))
    else:
        one = replace(one, value=json_mutated(rng, one.value))
    return [*messages[:at], one, *messages[at + 1 :]]


def json_mutated(rng: random.Random, value: bytes | None) -> bytes | None:
    """The JSON with one or a few places changed; bytes that are no JSON stay."""
    try:
        data = json.loads(value or b"")
    except (ValueError, RecursionError):
        return value
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(data))
        if not places:
            return json.dumps(rng.choice(ODD)).encode()
        holder, key = rng.choice(places)
        _CHANGES[rng.randrange(len(_CHANGES))](rng, holder, key, places)
    # surrogates pass as escapes, NaN as NaN
    return json.dumps(data).encode()


def _places(data: Any) -> Any:
    stack = [data]
    while stack:
        holder = stack.pop()
        if isinstance(holder, dict | list):
            for key in holder if isinstance(holder, dict) else range(len(holder)):
                yield holder, key
                stack.append(holder[key])


def _one_odd(rng: random.Random) -> Any:
    # a copy: a list that was put in two places could come to hold itself
    return deepcopy(rng.choice(ODD))


def _odd(rng: random.Random, holder: Any, key: Any, _: Any) -> None:
    holder[key] = _one_odd(rng)


def _near(rng: random.Random, holder: Any, key: Any, _: Any) -> None:
    now = holder[key]
    if isinstance(now, bool):
        holder[key] = not now
    elif isinstance(now, int):
        holder[key] = now + rng.choice((-1, 1, now, -2 * now, 1 << 32))
    elif isinstance(now, float):
        holder[key] = now * rng.choice((-1.0, 0.5, 1e300, 1e-300))
    elif isinstance(now, str):
        at = rng.randrange(len(now) + 1)
        holder[key] = (
            now[:at] + rng.choice(("", "\0", "/", "..", "x", "é", "0", "@")) + now[at + 1 :]
        )
    elif isinstance(now, list) and now:
        now.append(rng.choice(now))


def _gone(_: random.Random, holder: Any, key: Any, __: Any) -> None:
    del holder[key]


def _copied(rng: random.Random, holder: Any, key: Any, places: Any) -> None:
    other, where = rng.choice(places)
    # no circle: only what holds nothing is copied
    if not isinstance(other[where], dict | list):
        holder[key] = other[where]


def _added(rng: random.Random, holder: Any, _: Any, places: Any) -> None:
    if isinstance(holder, dict):
        names = [k for h, k in places if isinstance(h, dict)]
        holder[rng.choice([*names, "x", "", "image", "job_size", "\ud800"])] = _one_odd(rng)


_CHANGES: tuple[Callable[..., None], ...] = (_odd, _odd, _near, _near, _gone, _copied, _added)


def _headers(
    rng: random.Random, headers: tuple[tuple[str, bytes | None], ...], seeds: Sequence[bytes]
) -> tuple[tuple[str, bytes | None], ...]:
    new = list(headers)
    if seeds and rng.random() < 0.4:
        return unpack(rng.choice(seeds))[0].headers
    if new and rng.random() < 0.4:
        del new[rng.randrange(len(new))]
    else:
        name = rng.choice(("ce_type", "CE_TYPE", "ce_specversion", "ce_time", "traceparent",
                           "dlq_id", "dlq_partition", "", "x"))  # fmt: skip
        new.append((name, rng.choice((
            None, b"", b"2.0", b"1.0", b"\xff", b"frond.image.uploaded.v2", b"frond.job.sealed.v1",
            b"frond.job.cancelled.v1", b"9999-12-31T23:59:59-14:00", b"00-" + b"a" * 32 + b"-" +
            b"b" * 16 + b"-01", b"9" * 5000,
        ))))  # fmt: skip
    return tuple(new[:12])
