"""The SQL engine: SQLite in WAL mode, or PostgreSQL by URL; migrated at start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from frond.runtime import get_logger

T = TypeVar("T")

_READERS: Final = 4
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 7_106_511  # any number, the same in every ingest process
_log = get_logger(__name__)


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
        self._upserts: dict[Table, Any] = {}
        self._reading: Engine | None = None
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="queries")
        if self.sqlite:
            self._reading = create_engine(url.replace("+aiosqlite", "", 1), pool_size=_READERS)
            for engine in (self.engine.sync_engine, self._reading):
                event.listen(engine, "connect", _tune)

    async def migrate(self) -> None:
        """Bring the schema up to date; one that a later version has migrated stays as it is."""
        async with self.engine.begin() as connection:
            if not self.sqlite:
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(:n)"), {"n": _MIGRATION_LOCK}
                )
            await connection.run_sync(_upgrade)

    async def close(self) -> None:
        self._readers.shutdown()
        if self._reading is not None:
            self._reading.dispose()
        await self.engine.dispose()

    async def ask(self, queries: Callable[[Connection], T]) -> T:
        """What these queries answer, asked in one go.

        On SQLite in a thread, from the first query to the last row: an answer that goes back and
        forth between thread and loop waits at each turn for whatever else computes.
        """
        if self._reading is None:
            async with self.engine.connect() as connection:
                return await connection.run_sync(queries)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._ask, queries)

    def _ask(self, queries: Callable[[Connection], T]) -> T:
        assert self._reading is not None
        with self._reading.connect() as connection:
            return queries(connection)

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
        if table not in self._upserts:
            # making one costs as much as ten rows
            self._upserts[table] = self._upsert(table)
        return self._upserts[table]

    def _upsert(self, table: Table) -> Any:
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
    _alembic(connection, _upgrade_unless_later)


def _upgrade_unless_later(config: Config) -> None:
    found = MigrationContext.configure(config.attributes["connection"]).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is None or found in known:
        command.upgrade(config, "head")
    else:
        # somebody went back a version; migrations only add, so what they have made serves this one, too
        _log.warning("a later version has migrated the database: left as it is", revision=found)


def _alembic(connection: Connection, call: Callable[[Config], None]) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    call(config)
