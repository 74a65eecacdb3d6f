"""The Toxiproxy binary: found, or compiled once from the pinned Go module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from frond.stack.go_build import GoProgram, ensure_program

TOXIPROXY: Final = GoProgram(
    title="Toxiproxy",
    package="github.com/Shopify/toxiproxy/v2/cmd/server",
    version="v2.12.0",
    modules_sha256="e9e6de00cf9f2b61c8f77583052de634c9f4a71da9d7a3bc920b139045ba524b",
    built_as="server",
    named="toxiproxy-server",
    variable="TOXIPROXY_BIN",
    takes="about 20 seconds on two cores",
)


def ensure_toxiproxy(say: Callable[[str], None] = print) -> Path:
    """A Toxiproxy server: ``$TOXIPROXY_BIN``, the cached one, one on PATH, else compiled now.

    Raises:
        StackError: TOXIPROXY_BIN names no executable, or the compilation failed.
    """
    return ensure_program(TOXIPROXY, say)
