"""Would this change of a schema break a publisher or a subscriber of today?

Allowed: new optional properties, new enum values, new definitions, null beside what is taken (what is
not set is never sent as null). Not allowed: a property that goes or changes its type, a property
that becomes required, an enum value that goes.
"""

from __future__ import annotations

from typing import Any, Final

_COMPARED: Final = ("type", "const", "format", "pattern", "$ref")


def breaks(old: dict[str, Any], new: dict[str, Any], at: str = "") -> list[str]:
    """What breaks when schema ``old`` becomes ``new``: one line each, empty when nothing does."""
    out: list[str] = []
    if "anyOf" not in old:
        new = _without_null(new)
    for key in _COMPARED:
        if key in old and old[key] != new.get(key):
            out.append(f"{at or '/'}: {key} {old[key]!r} became {new.get(key)!r}")
    gone = set(map(str, old.get("enum", []))) - set(map(str, new.get("enum", [])))
    if gone:
        out.append(f"{at or '/'}: enum values went: {sorted(gone)}")
    demanded = set(new.get("required", [])) - set(old.get("required", []))
    if demanded and "properties" in old:
        out.append(f"{at or '/'}: now required: {sorted(demanded)}")
    for section in ("properties", "$defs"):
        for name, was in old.get(section, {}).items():
            now = new.get(section, {}).get(name)
            where = f"{at}/{name}"
            if now is None:
                out.append(f"{where}: went")
            elif isinstance(was, dict) and isinstance(now, dict):
                out.extend(breaks(was, now, where))
    if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
        out.extend(breaks(old["items"], new["items"], at + "[]"))
    return out


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    others = [s for s in schema.get("anyOf", ()) if s != {"type": "null"}]
    return schema | others[0] if len(others) == 1 else schema
