"""Would this change of a schema break a publisher or a subscriber of today?

Allowed: new optional properties, new enum values, new definitions, wider bounds, null beside what is
taken (what is not set is never sent as null), a default where there was none. Not allowed: a property that
goes or changes its type or what it may hold, by a pattern, a narrower bound or null that is taken no more,
or its default; a property that becomes required; an enum value that goes; in what is sent, a property that
was always there and need not be any more; and any change of a keyword of which nothing is known here.
"""

from __future__ import annotations

from typing import Any, Final

_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_INNER: Final = (("items", "[]"), ("additionalProperties", "{}"))
_SECTIONS: Final = ("properties", "$defs")
_SAYS_NOTHING: Final = ("title", "description", "examples", "$id", "$schema")
# whatever else there is must stay as it is: what this module does not know may not pass it unseen
_WITH_RULES: Final = frozenset(
    (*_SECTIONS, *_SAYS_NOTHING, *(key for key, _ in _INNER), "const", "enum", "required")
)
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
        (was, were), (now, are) = _parted(old), _parted(new)
        beside = breaks(was, now, at, sent=sent)
        return beside + _alternatives_broken(were, are, at, sent)
    here = at or "/"
    out = [
        f"{here}: {key} {old.get(key)!r} became {new.get(key)!r}"
        for key in sorted((old.keys() | new.keys()) - _WITH_RULES)
        if _differs(key, old, new)
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
    for section in _SECTIONS:
        for name, was in old.get(section, {}).items():
            now = new.get(section, {}).get(name)
            where = f"{at}/{name}"
            out.extend([f"{where}: went"] if now is None else breaks(was, now, where, sent=sent))
    for key, mark in _INNER:
        out.extend(_inner_broken(old.get(key, True), new.get(key, True), at + mark, sent))
    return out


def _differs(key: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    if key == "default" and (key in old) != (key in new):
        # null is a default, too
        return key in old
    was, now = old.get(key), new.get(key)
    if key == "default" and isinstance(was, dict) and isinstance(now, dict):
        # new optional properties are in the default of what they belong to
        return bool(was != {k: v for k, v in now.items() if k in was})
    if key not in _UPPER + _LOWER:
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


def _parted(schema: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What holds for all alternatives, and the alternatives; where there is but one, it has all but what
    stands beside alternatives where there are more."""
    if "anyOf" in schema:
        return {k: v for k, v in schema.items() if k != "anyOf"}, schema["anyOf"]
    beside = {k: v for k, v in schema.items() if k == "default"}
    return beside, [{k: v for k, v in schema.items() if k not in beside}]


def _alternatives_broken(
    were: list[dict[str, Any]], are: list[dict[str, Any]], at: str, sent: bool
) -> list[str]:
    """Each old alternative has to be taken by a new one, and each new one be an old one, or null."""
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
