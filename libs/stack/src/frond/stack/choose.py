"""Docker where an engine answers, native Kafka and MinIO elsewhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from frond.stack.endpoints import Stack
from frond.stack.errors import StackError
from frond.stack.native import NativeStack


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
            stack's data lies in ``data_dir`` either way.

    Raises:
        StackError: FROND_STACK names something else, or Docker was demanded and does not answer.
    """
    wish = os.environ.get("FROND_STACK", "")
    if wish not in ("", "native", "docker"):
        raise StackError(f"FROND_STACK={wish}: say native or docker, or leave it out.")
    native = NativeStack(data_dir, kafka_port=kafka_port, s3_port=s3_port, keys=keys, logs=logs)
    if wish == "native":
        return native
    try:
        from frond.stack.docker import DockerStack, why_no_docker

        reason = why_no_docker()
    except ImportError as e:
        reason = f"{e.name} is not installed"
    if not reason:
        digest = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:10]
        volumes = f"frond-{digest}" if lasting else ""
        return DockerStack(kafka_port=kafka_port, s3_port=s3_port, keys=keys, volumes=volumes)
    if wish == "docker":
        raise StackError(f"FROND_STACK=docker, but {reason}.")
    say(f"Native Kafka and MinIO ({reason})")
    return native
