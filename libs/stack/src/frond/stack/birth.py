"""Which process it is: a pid alone may be somebody else's by now, after a reboot before all."""

from __future__ import annotations

from pathlib import Path


def birth_of(pid: int) -> str | None:
    """What no other process has, before or after a reboot; None where none with this pid runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # the second field is its name in brackets, which may hold anything; the 22nd is when it began
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"


def command_of(pid: int) -> list[str]:
    """The words of its command line; none where it does not run."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    return [word.decode(errors="replace") for word in words]
