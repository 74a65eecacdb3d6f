"""The SQL engine: SQLite in WAL mode, or PostgreSQL by URL; migrated at start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 7_106_511  # any number, the same in every ingest process


class Database:
    """Connections to one database.

    On SQLite, writers of this process queue for one lock instead of meeting SQLITE_BUSY; readers
    never wait. On PostgreSQL several ingest processes may share the database.
    """

    def __init__(self, url: str) -> None:
        self.sqlite = url.startswith("sqlite")
        options: dict[str, Any] = {} if self.sqlite else {"pool_pre_ping": True, "pool_size": 10}
        self.engine: AsyncEngine = create_async_engine(url, **options)
        self._writers = asyncio.Lock()
        if self.sqlite:
            event.listen(self.engine.sync_engine, "connect", _tune)

    async def migrate(self) -> None:
        """Bring the schema up to date."""
        async with self.engine.begin() as connection:
            if not self.sqlite:
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(:n)"), {"n": _MIGRATION_LOCK}
                )
            await connection.run_sync(_upgrade)

    async def close(self) -> None:
        await self.engine.dispose()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries."""
        async with self.engine.connect() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, rolled back by an exception."""
        turn = self._writers if self.sqlite else contextlib.nullcontext()
        async with turn, self.engine.begin() as connection:
            if self.sqlite:
                # of another process, during a roll: a transaction that begins by reading could not
                # write any more once that one has
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def insert(self, table: Table) -> Any:
        """An INSERT that knows ON CONFLICT, in this database's dialect."""
        return sqlite.insert(table) if self.sqlite else postgresql.insert(table)

    def upsert(self, table: Table) -> Any:
        """An INSERT that replaces all other columns where the primary key is there already."""
        insert = self.insert(table)
        keys = [c.name for c in table.primary_key]
        rest = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in keys}
        return insert.on_conflict_do_update(index_elements=keys, set_=rest)


def _tune(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # all but the idempotency keys can be rebuilt, and WAL loses at most its last commits
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _upgrade(connection: Connection) -> None:
    _alembic(connection, lambda config: command.upgrade(config, "head"))


def _alembic(connection: Connection, call: Callable[[Config], None]) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    call(config)
