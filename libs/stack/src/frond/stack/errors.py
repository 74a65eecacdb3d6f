"""What can go wrong while a stack starts, in sentences for whoever started it."""

from __future__ import annotations

from pathlib import Path


class StackError(RuntimeError):
    """The stack cannot be started, or stopped being there."""


def with_log(sentence: str, log: Path, lines: int = 25) -> StackError:
    """The error with the last lines of a child's log, where its reason usually stands."""
    return StackError(f"{sentence}\n--- the end of {log} ---\n{tail(log, lines)}")


def tail(log: Path, lines: int = 25) -> str:
    """The last lines of a text file; empty when there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as f:
        size = f.seek(0, 2)
        f.seek(max(0, size - 64 * 1024))
        text = f.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])
