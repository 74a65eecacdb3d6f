"""The MinIO binary: found, or compiled once from the pinned Go module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from frond.stack.go_build import GoProgram, ensure_program

MINIO: Final = GoProgram(
    title="MinIO",
    package="github.com/minio/minio",
    version="v0.0.0-20260212201848-7aac2a2c5b7c",
    modules_sha256="b1ae8c3069f4b23b8bf3a1f84f287f85da4ba7853c13e459388f793104a5d9ec",
    built_as="minio",
    named="minio",
    variable="MINIO_BIN",
    takes="about 4 minutes on two cores",
)


def ensure_minio(say: Callable[[str], None] = print) -> Path:
    """A MinIO binary: ``$MINIO_BIN``, the cached one, one on PATH, else compiled now.

    Raises:
        StackError: MINIO_BIN names no executable, or the compilation failed.
    """
    return ensure_program(MINIO, say)
