"""The migrations make the tables that the code uses."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select, text

from frond.ingest.readmodel import tables
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


async def test_going_back_a_version_leaves_the_tables_as_they_are(tmp_path: Path) -> None:
    """A revision that this version has never heard of is a later one's: no error, nothing of it is
    undone, and this version reads and writes beside it."""
    db = Database(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    await db.migrate()
    async with db.write() as c:
        await c.execute(text("ALTER TABLE offsets ADD COLUMN later VARCHAR NOT NULL DEFAULT 'x'"))
        await c.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await db.migrate()
    row = {"cluster": "c", "topic": "t", "partition": 0, "offset": 7}
    async with db.write() as c:
        await c.execute(db.upsert(tables.offsets), [row])
        assert [dict(r._mapping) for r in await c.execute(select(tables.offsets))] == [row]
        told = await c.execute(text("SELECT later, version_num FROM offsets, alembic_version"))
        assert told.all() == [("x", "9999")]
    await db.close()
