"""For developers: one service in the foreground, and the topics as they fill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from frond.contracts import topics
from frond.stack.birth import birth_of
from frond.stack.installation import write_private

_LOOK_EVERY_S: Final = 0.7


def run_service(state: Path, name: str, env: Mapping[str, str], root: Path, *, reload: bool) -> int:
    """Run a service in this terminal in place of the supervised one, until Ctrl-C.

    With ``reload`` it is started anew whenever a source file of it or of a library changes.
    """
    hold = state / "hold" / name
    hold.parent.mkdir(parents=True, exist_ok=True)
    # whole at once: the supervisor takes what it cannot read for left behind
    write_private(hold, f"{os.getpid()} {birth_of(os.getpid())}")
    sources = [root / "services" / name / "src", *sorted(root.glob("libs/*/src"))]
    process = None
    try:
        time.sleep(1.0)  # the supervisor looks at the hold file several times a second
        while True:
            process = subprocess.Popen([sys.executable, "-m", f"frond.{name}"], env=dict(env))
            seen = newest(sources)
            while process.poll() is None and not (reload and newest(sources) != seen):
                time.sleep(_LOOK_EVERY_S)
            if process.poll() is None:
                print(f"— {name}: a source file changed, starting anew", flush=True)
                process.terminate()
                process.wait()
            elif not reload:
                return process.returncode
            else:
                print(f"— {name} ended with status {process.returncode}; waiting for a change")
                while newest(sources) == seen:
                    time.sleep(_LOOK_EVERY_S)
    except KeyboardInterrupt:
        return 0
    finally:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
        hold.unlink(missing_ok=True)


def newest(folders: list[Path]) -> tuple[int, int]:
    """When the newest Python file was changed, and how many there are."""
    times = [f.stat().st_mtime_ns for folder in folders for f in folder.rglob("*.py")]
    return max(times, default=0), len(times)


async def watch_topics(bootstrap: str, prefix: str, *, from_beginning: bool) -> None:
    """Print one line an event, of every topic, until cancelled."""
    from aiokafka import AIOKafkaConsumer

    names = {t.named(prefix): t.name.split(".")[1] for t in topics.ALL}
    consumer = AIOKafkaConsumer(
        *names,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest" if from_beginning else "latest",
        enable_auto_commit=False,
        group_id=None,
    )
    await consumer.start()
    try:
        async for message in consumer:
            print(line_of(names[message.topic], message), flush=True)
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await consumer.stop()


def line_of(topic: str, message: Any) -> str:
    """One event on one line: time, topic, partition/offset, key, type, the value's fields."""
    headers = {k: v.decode("utf-8", "replace") for k, v in message.headers}
    kind = re.sub(r"\.v\d+$", "", headers.get("ce_type", "-")).removeprefix("frond.")
    key = (message.key or b"-").decode("utf-8", "replace")
    when = datetime.fromtimestamp(message.timestamp / 1000).strftime("%H:%M:%S.%f")[:-3]
    return (
        f"{when} {topic:<10} {message.partition:>2}/{message.offset:<6} {key[:24]:<24} "
        f"{kind:<18} {_brief(message.value)}"
    )


def _brief(value: bytes | None, width: int = 160) -> str:
    try:
        fields = json.loads(value or b"null")
    except ValueError:
        return repr(value)[:width]
    if not isinstance(fields, dict):
        return str(fields)[:width]
    parts = []
    for name, field in fields.items():
        if isinstance(field, dict | list):
            parts.append(f"{name}[{len(field)}]")
        elif field is not None:
            parts.append(f"{name}={str(field)[:48]}")
    return " ".join(parts)[:width]
