"""What Compose has made before its services start."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from frond.stack import prepare
from frond.stack.cli import app


@pytest.mark.parametrize(("told", "replicas"), [("3", 3), ("", 1), (None, 1)])
def test_topics_have_the_replicas_that_services_are_told(
    told: str | None, replicas: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever makes topics first decides for all: it is this one."""
    asked: list[int] = []

    async def ensure_topics(_: str, __: str, *, replication_factor: int) -> None:
        asked.append(replication_factor)

    class Store:
        async def ensure_bucket(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(prepare, "ensure_topics", ensure_topics)
    monkeypatch.setattr(prepare, "_store", lambda *_: Store())
    for name in ("KAFKA_BOOTSTRAP", "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        monkeypatch.setenv(f"FROND_{name}", "x")
    monkeypatch.delenv("FROND_REPLICATION_FACTOR", raising=False)
    if told is not None:
        monkeypatch.setenv("FROND_REPLICATION_FACTOR", told)
    done = CliRunner().invoke(app, ["prepare", "--models", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert asked == [replicas]
