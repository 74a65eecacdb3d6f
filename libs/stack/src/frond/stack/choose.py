"""Docker where an engine answers, native Kafka and MinIO elsewhere; what keeps its data stays with one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from frond.stack.endpoints import Stack
from frond.stack.errors import StackError
from frond.stack.installation import write_private
from frond.stack.native import NativeStack

_KINDS: Final = {"native": "in {data}", "docker": "in Docker volumes"}
_ANOTHER: Final = (
    "For an empty installation beside it name another folder: FROND_STATE_DIR=.frond-2"
)


def choose_stack(
    data_dir: Path,
    *,
    kafka_port: int = 0,
    s3_port: int = 0,
    keys: tuple[str, str] | None = None,
    logs: Path | None = None,
    lasting: bool = False,
    say: Callable[[str], None] = print,
) -> Stack:
    """The stack for this machine, not started.

    Docker is taken where an engine answers and both images are there or can be pulled;
    ``FROND_STACK=native`` or ``FROND_STACK=docker`` decides it by hand.

    Args:
        lasting: containers keep their data in volumes named after ``data_dir``; the native
            stack's data lies in ``data_dir`` either way. What ``keep_kind`` has noted is taken
            again, and nothing else: the other kind would begin with an empty store.

    Raises:
        StackError: FROND_STACK names something else, or not the kind that is kept; or Docker was
            demanded, or is kept, and does not answer.
    """
    wish = os.environ.get("FROND_STACK", "")
    if wish not in ("", *_KINDS):
        raise StackError(f"FROND_STACK={wish}: say native or docker, or leave it out.")
    volumes = volumes_of(data_dir) if lasting else ""
    kept = _kept(data_dir, wish) if lasting else ""
    if kept and wish not in ("", kept):
        raise StackError(
            f"FROND_STACK={wish}, but topics and objects of this installation lie "
            f"{_KINDS[kept].format(data=data_dir)}: leave it out, or say {kept}. {_ANOTHER}."
        )
    native = NativeStack(data_dir, kafka_port=kafka_port, s3_port=s3_port, keys=keys, logs=logs)
    if "native" in (wish, kept):
        return native
    try:
        from frond.stack.docker import DockerStack, why_no_docker

        reason = why_no_docker()
    except ImportError as e:
        reason = f"{e.name} is not installed"
    if not reason:
        return DockerStack(kafka_port=kafka_port, s3_port=s3_port, keys=keys, volumes=volumes)
    if kept:
        raise StackError(
            "Topics and objects of this installation lie in Docker volumes, but "
            f"{reason}: start Docker, then try again. {_ANOTHER}."
        )
    if wish == "docker":
        raise StackError(f"FROND_STACK=docker, but {reason}.")
    say(f"Native Kafka and MinIO ({reason})")
    return native


def keep_kind(data_dir: Path, stack: Stack) -> None:
    """Note which kind of stack has the data from now on, once it has started."""
    write_private(_kind_file(data_dir), f"{stack.kind}\n")


def kept_kind(data_dir: Path) -> str:
    """Which kind of stack has the installation's data: ``docker`` or ``native``; empty where none has yet."""
    if _kind_file(data_dir).exists():
        return _kind_file(data_dir).read_text().strip()
    # versions before noted none: what they left tells
    if any(data_dir.glob("minio/[!.]*")):
        return "native"
    return "docker" if (data_dir / "frond.sqlite").exists() else ""


def volumes_of(data_dir: Path) -> str:
    """What the names of an installation's Docker volumes begin with."""
    return f"frond-{hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:10]}"


def _kind_file(data_dir: Path) -> Path:
    # beside the data and not with the keys: whoever restores those on another machine may choose anew
    return data_dir / "kind"


def _kept(data_dir: Path, wish: str) -> str:
    """``kept_kind``; where versions before went to and fro, what is wished.

    Raises:
        StackError: they did, and nothing is wished.
    """
    kept = kept_kind(data_dir)
    volumes = volumes_of(data_dir)
    if kept == "native" and not _kind_file(data_dir).exists() and _volumes_there(volumes):
        if not wish:
            raise StackError(
                f"There are two stores of this installation: one in {data_dir} and one in the Docker "
                f"volumes {volumes}-…. Say once which it shall be: FROND_STACK=native or "
                "FROND_STACK=docker."
            )
        return wish
    return kept


def _volumes_there(volumes: str) -> bool:
    try:
        from frond.stack.docker import find_volumes

        return bool(find_volumes(volumes))
    except (ImportError, StackError):
        return False
