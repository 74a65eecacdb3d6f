"""Where Frond is: the environment, and below it the file that ``make up`` wrote."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

ENV_FILE = Path(".frond") / "env"


def frond_env(start: Path | None = None) -> dict[str, str]:
    """All ``FROND_…`` variables: those of the process first, then those of ``.frond/env``.

    The file is looked for in ``start`` (the working directory) and the folders above it.
    """
    found = {k: v for k, v in os.environ.items() if k.startswith("FROND_")}
    path = find_env_file(start or Path.cwd())
    if path is not None:
        # the file also leads a shell to the commands, by PATH
        told = parse_env(path.read_text(encoding="utf-8"))
        found = {**{k: v for k, v in told.items() if k.startswith("FROND_")}, **found}
    return found


def find_env_file(start: Path) -> Path | None:
    """The nearest ``.frond/env`` upwards, if there is one."""
    here = start.resolve()
    for folder in (here, *here.parents):
        path = folder / ENV_FILE
        if path.is_file():
            return path
    return None


def parse_env(text: str) -> dict[str, str]:
    """``NAME=value`` and ``export NAME=value`` lines, quoted as for a shell; all else is skipped."""
    out: dict[str, str] = {}
    for line in text.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if words and words[0] == "export":
            words = words[1:]
        for word in words:
            name, equals, value = word.partition("=")
            if equals and name.isidentifier():
                out[name] = value
    return out


def setting(env: Mapping[str, str], name: str, default: str = "") -> str:
    """A variable's value; the default where it is unset or empty."""
    return env.get(name, "").strip() or default
