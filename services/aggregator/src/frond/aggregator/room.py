"""A disk of our own that is full: whoever needs it waits, as for the store."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from frond.contracts.errors import StoreUnavailable

_OF_THE_DISK: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_PRIMARY: Final = 0xFF
"""The bits of SQLite's extended codes that are the code."""


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Raises StoreUnavailable where the block finds that this machine's disk takes no more."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreUnavailable(f"no room for {what}: {e}") from e
    except sqlite3.OperationalError as e:
        # the memory's, a lock's and a mistake's have codes of their own
        if e.sqlite_errorcode & _PRIMARY not in _OF_THE_DISK:
            raise
        raise StoreUnavailable(f"no room for {what}: {e} ({e.sqlite_errorname})") from e
