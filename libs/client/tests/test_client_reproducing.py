"""What differs between two runs, once the new ids are taken for the old."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.client import reproducing
from frond.client.reproducing import differing_bytes, differing_rows

OLD, NEW = b"job-1", b"job-1-again"
IDS = {NEW: OLD, b"b" * 32: b"a" * 32}


@settings(deadline=None)
@given(
    parts=st.lists(
        st.sampled_from([b"job-1", b"a" * 32, b"aaaa", b"{", b"-again", b"bbb", b"\n", b"job"])
        | st.binary(max_size=9)
    ),
    piece=st.integers(1, 40),
)
def test_only_ids_may_differ(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], piece: int
) -> None:
    """A file, and itself with the new ids in place of the old: the same, however it is cut."""
    folder = tmp_path_factory.mktemp("d")
    old, new = folder / "old", folder / "new"
    renewed = {o: n for n, o in IDS.items()}
    other = b" ".join(renewed.get(p, p) for p in parts)
    old.write_bytes(reproducing._sub(other, IDS))
    new.write_bytes(other)
    before, reproducing._PIECE = reproducing._PIECE, piece  # type: ignore[misc]
    try:
        assert differing_bytes(old, new, IDS) == ""
    finally:
        reproducing._PIECE = before  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b'{"job":"job-1","n":1}', b'{"job":"job-1-again","n":1}', ""),
        (b'{"job":"job-1","n":1}', b'{"job":"job-1-again","n":2}', "byte 19: was"),
        (b"[1,2", b"[1,2]", "byte 4: one of them ends"),
        (b"a" * 3_000_000 + b"x", b"a" * 3_000_000 + b"y", "byte 3000000: was"),
        (b"", b"", ""),
    ],
)
def test_the_first_byte_that_differs_is_told(
    tmp_path: Path, old: bytes, new: bytes, told: str
) -> None:
    """With what is around it on both sides."""
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    found = differing_bytes(tmp_path / "old", tmp_path / "new", IDS)
    assert found.startswith(told) and bool(found) == bool(told)


def parquet(path: Path, image: str, scores: list[float], head: str = "v") -> Path:
    table = pa.table({"id": [f"{image}/{n}" for n in range(len(scores))], "score": scores})
    pq.write_table(table.replace_schema_metadata({"k": f"{head} {image}"}), path)
    return path


def test_rows_of_parquet(tmp_path: Path) -> None:
    """Ids may differ, values and heads may not; the first row that does is told."""
    old = parquet(tmp_path / "old", "a" * 32, [0.5, 0.25])
    assert differing_rows(old, parquet(tmp_path / "1", "b" * 32, [0.5, 0.25]), IDS) == ""
    told = differing_rows(old, parquet(tmp_path / "2", "b" * 32, [0.5, 0.75]), IDS)
    assert told == "row 1, score: was 0.25, is 0.75"
    assert "2 rows were, 1 are" in differing_rows(
        old, parquet(tmp_path / "3", "b" * 32, [0.5]), IDS
    )
    told = differing_rows(old, parquet(tmp_path / "4", "b" * 32, [0.5, 0.25], "w"), IDS)
    assert told == "their heads differ"
    assert "row 0, id" in differing_rows(old, parquet(tmp_path / "5", "c" * 32, [0.5, 0.25], "v"),
                                         {**IDS, b"v " + b"c" * 32: b"v " + b"a" * 32})  # fmt: skip
