"""Would this change of a schema break a publisher or a subscriber of today?

Allowed: new optional properties, new enum values, new definitions, wider bounds, null beside what is
taken (what is not set is never sent as null). Not allowed: a property that goes or changes its type or
what it may hold, by a pattern, a narrower bound or null that is taken no more; a property that becomes
required; an enum value that goes; and, in what is sent, a property that was always there and need not be
any more.
"""

from __future__ import annotations

from typing import Any, Final

_COMPARED: Final = ("type", "format", "pattern", "$ref")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_INNER: Final = (("items", "[]"), ("additionalProperties", "{}"))
_NULL: Final = {"type": "null"}


def breaks(
    old: dict[str, Any], new: dict[str, Any], at: str = "", *, sent: bool = False
) -> list[str]:
    """What breaks when schema ``old`` becomes ``new``: one line each, empty when nothing does.

    Args:
        at: where in the schema this is; for the lines.
        sent: whether it is of what subscribers get, not of what publishers may send.
    """
    if "anyOf" in old or "anyOf" in new:
        return _alternatives_broken(old, new, at, sent)
    here = at or "/"
    out = [
        f"{here}: {key} {old.get(key)!r} became {new.get(key)!r}"
        for key in (*_COMPARED, *_UPPER, *_LOWER)
        if _differs(key, old.get(key), new.get(key))
    ]
    gone = _values(old) - _values(new)
    if gone:
        out.append(f"{here}: enum values went: {sorted(gone)}")
    elif _values(new) and not _values(old):
        out.append(f"{here}: now only one of {sorted(_values(new))}")
    demanded = set(new.get("required", [])) - set(old.get("required", []))
    if demanded:
        out.append(f"{here}: now required: {sorted(demanded)}")
    spared = set(old.get("required", [])) - set(new.get("required", []))
    if sent and spared:
        out.append(f"{here}: no longer always there: {sorted(spared)}")
    for section in ("properties", "$defs"):
        for name, was in old.get(section, {}).items():
            now = new.get(section, {}).get(name)
            where = f"{at}/{name}"
            out.extend([f"{where}: went"] if now is None else breaks(was, now, where, sent=sent))
    for key, mark in _INNER:
        out.extend(_inner_broken(old.get(key, True), new.get(key, True), at + mark, sent))
    return out


def _differs(key: str, was: Any, now: Any) -> bool:
    if key in _COMPARED:
        return bool(was != now)
    if now is None:
        return False
    return was is None or bool(now < was if key in _UPPER else now > was)


def _values(schema: dict[str, Any]) -> set[str]:
    """Those that an enumeration, or a constant, has; none: any value will do."""
    found = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return set(map(str, found))


def _inner_broken(was: Any, now: Any, at: str, sent: bool) -> list[str]:
    # in JSON schema, True is what takes anything, False what takes nothing
    if was is False or now is was:
        return []
    if now is False:
        return [f"{at}: nothing is taken any more"]
    return breaks({} if was is True else was, {} if now is True else now, at, sent=sent)


def _alternatives_broken(
    old: dict[str, Any], new: dict[str, Any], at: str, sent: bool
) -> list[str]:
    """Each old alternative has to be taken by a new one, and each new one be an old one, or null."""
    were, are = old.get("anyOf", [old]), new.get("anyOf", [new])
    out = [f"{at or '/'}: null is no longer taken"] if _NULL in were and _NULL not in are else []
    were, are = [s for s in were if s != _NULL], [s for s in are if s != _NULL]
    if len(were) == len(are) == 1:
        return out + breaks(were[0], are[0], at, sent=sent)
    fits = {
        (i, j): not breaks(was, now, at, sent=sent)
        for i, was in enumerate(were)
        for j, now in enumerate(are)
    }
    for i, was in enumerate(were):
        if not any(fits[i, j] for j in range(len(are))):
            out.append(f"{at or '/'}: {was} is no longer taken")
    for j, now in enumerate(are):
        if not any(fits[i, j] for i in range(len(were))):
            out.append(f"{at or '/'}: {now} is new")
    return out
