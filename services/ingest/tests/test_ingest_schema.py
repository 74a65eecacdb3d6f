"""The migrations make the tables that the code uses."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from frond.ingest.readmodel.database import Database
from frond.ingest.readmodel.tables import metadata


def _differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_a_migrated_database_is_what_the_tables_say(tmp_path: Path) -> None:
    """Migrating twice changes nothing, the result has no difference, and WAL is on."""
    db = Database(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    await db.migrate()
    await db.migrate()
    async with db.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
    await db.close()
