"""Scenarios one after the other, then the calm reference, then the verdict."""

from __future__ import annotations


def main() -> None:
    raise SystemExit("not yet")
