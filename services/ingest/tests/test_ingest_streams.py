"""Event streams that have much to catch up with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from starlette.requests import Request

from frond.auth import Gate, Principal, Scope
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason
from frond.ingest.context import Ingest
from frond.ingest.readmodel import tables
from frond.ingest.routes import events
from frond.ingest.settings import IngestSettings

WHO = Principal("key:1", "acme", frozenset({Scope.READ}))


class Shutting:
    """A gate that lets the key in once, and never again."""

    def __init__(self) -> None:
        self.asked = 0

    async def identify(self, _: str | None) -> Principal:
        self.asked += 1
        if self.asked > 1:
            raise JobRejected(Reason.UNAUTHORIZED, "This key was revoked.")
        return WHO


async def test_a_revoked_key_reads_no_further_page(tmp_path: Path) -> None:
    """A stream asks for its key before each page, also while all of them are full."""
    ingest = Ingest(IngestSettings(DATABASE_PATH=tmp_path / "a.db"))  # type: ignore[call-arg]
    gate = Shutting()
    ingest.gate = cast(Gate, gate)
    app = SimpleNamespace(state=SimpleNamespace(ingest=ingest))
    try:
        await ingest.prepared()
        async with ingest.db.write() as c:
            rows = [
                {"job_id": "j", "seq": n, "type": "image", "data": "{}"} for n in range(1, 2001)
            ]
            await c.execute(tables.events.insert(), rows)
        request = Request({"type": "http", "headers": [], "app": app, "frond.principal": WHO})
        told = [piece async for piece in events._stream(request, ingest, "j", 0)]
        assert sum(piece.startswith("id: ") for piece in told) == events._PAGE
        assert gate.asked == 2
    finally:
        await ingest.close()
