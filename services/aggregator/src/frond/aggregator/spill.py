"""A job's outcomes in the order of their names, however many they are.

They are kept in SQLite's temporary file, which sorts on disk: memory stays constant.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from frond.contracts.jobs import ImageOutcome

_PAGE = 500


class Outcomes:
    """Outcomes, iterated as often as wanted in the order of (name, image id).

    Blocking; may be used from different threads one after the other.
    """

    def __init__(self) -> None:
        # an empty name is a private file that vanishes with the connection
        self._db = sqlite3.connect("", check_same_thread=False)
        # whoever is cancelled leaves a thread that is adding
        self._adding = threading.Lock()
        self._db.execute(
            "CREATE TABLE outcome (name BLOB, id TEXT, body BLOB, PRIMARY KEY (name, id))"
            " WITHOUT ROWID"
        )

    def add(self, outcomes: Iterable[ImageOutcome]) -> None:
        """Add outcomes; one that is there is replaced."""
        with self._adding, self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO outcome VALUES (?, ?, ?)",
                (
                    # bytes compare by code point, whatever SQLite's collations are
                    (o.name.encode("utf-8", "surrogatepass"), o.image_id, o.model_dump_json())
                    for o in outcomes
                ),
            )

    def clear(self) -> None:
        """Drop them all."""
        with self._db:
            self._db.execute("DELETE FROM outcome")

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM outcome").fetchone()[0])

    def __iter__(self) -> Iterator[ImageOutcome]:
        last: tuple[bytes, str] = (b"", "")
        while rows := self._db.execute(
            "SELECT name, id, body FROM outcome WHERE (name, id) > (?, ?)"
            " ORDER BY name, id LIMIT ?",
            (*last, _PAGE),
        ).fetchall():
            for _, _, body in rows:
                yield ImageOutcome.model_validate_json(body)
            last = (rows[-1][0], rows[-1][1])

    def close(self) -> None:
        with self._adding:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
