"""A chunk's masks as bytes."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.masks import MaskFile, WindowMask, check, codec, to_ipc


def masks(seed: int, windows: list[int], planes: int) -> list[WindowMask]:
    rng = np.random.default_rng(seed)
    return [
        WindowMask(w, rng.integers(0, 256, (planes, *rng.integers(1, 20, 2)), np.uint8))
        for w in windows
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**9),
    st.lists(st.integers(0, 1 << 40), max_size=6, unique=True).map(sorted),
    st.integers(2, 6),
    st.dictionaries(st.text(min_size=1, max_size=9).filter(lambda k: k != "frond.kind"), st.text(max_size=9)),
)  # fmt: skip
def test_what_is_written_is_read(
    seed: int, windows: list[int], planes: int, about: dict[str, str]
) -> None:
    """Every window, its planes and what the file says of itself come back; same bytes twice."""
    written = masks(seed, windows, planes)
    data = to_ipc(written, about)
    assert data == to_ipc(iter(written), dict(reversed(about.items())))
    assert check(data) == about
    with MaskFile.of(data) as file:
        assert file.windows == windows
        for mask in written:
            np.testing.assert_array_equal(file.planes(mask.window), mask.planes)


def test_a_file_is_read_window_by_window(tmp_path: Path) -> None:
    """A file on disk is the same; in any order, and more than once."""
    written = masks(3, [2, 5, 9], 3)
    (tmp_path / "c.arrow").write_bytes(to_ipc(written, {"a": "b"}))
    with MaskFile(tmp_path / "c.arrow") as file:
        for n in (2, 0, 1, 0):
            np.testing.assert_array_equal(file.planes(written[n].window), written[n].planes)
        with pytest.raises(KeyError):
            file.planes(3)


def test_windows_come_in_order() -> None:
    """A window twice, or out of order, is nothing that could be stored."""
    one, other = masks(0, [3, 4], 2)
    for wrong in ([other, one], [one, one]):
        with pytest.raises(ValueError, match="comes after"):
            to_ipc(wrong, {})


def test_a_window_has_planes_of_bytes() -> None:
    """Shapes and types that are none of a window's planes are refused when it is made."""
    for planes in (np.zeros((3, 4), np.uint8), np.zeros((1, 4, 4), np.uint8), np.zeros((2, 0, 4), np.uint8)):  # fmt: skip
        with pytest.raises(ValueError, match="shape"):
            WindowMask(0, planes)
    with pytest.raises(ValueError, match="uint8"):
        WindowMask(0, np.zeros((2, 4, 4), np.float32))  # type: ignore[arg-type]


def test_what_is_no_such_file_says_so() -> None:
    """Other bytes, another kind of Arrow file, and a cut file are ValueErrors."""
    data = to_ipc(masks(1, [0, 1], 3), {})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema([("x", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch([pa.array([1])], names=["x"]))
    for wrong in (b"", b"no", data[:-40], data[: len(data) // 2], sink.getvalue().to_pybytes()):
        with pytest.raises(ValueError, match="Arrow file"):
            check(wrong)


def test_a_plane_that_asks_for_more_than_its_window_is_damage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is room for the window, a want of memory is the file's fault; else it is ours."""
    data = bytearray(to_ipc(masks(1, [0], 3), {}))
    # a compressed buffer begins with its length, which zstd's frame follows
    size = struct.pack("<q", masks(1, [0], 3)[0].planes.size) + b"\x28\xb5\x2f\xfd"
    assert data.count(size) == 1
    data[data.index(size) + 6] = 0x7A
    with pytest.raises(ValueError, match="more memory than it has pixels"):
        check(bytes(data))

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(codec.np, "empty", full)
    with pytest.raises(MemoryError):
        check(bytes(data))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 8))
def test_damage_is_a_value_error_or_no_harm(seed: int, flips: int) -> None:
    """Flipped bytes never raise anything else, and never read past the end."""
    data = bytearray(to_ipc(masks(1, [0, 1, 7], 3), {"a": "b"}))
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, len(data), flips):
        data[at] ^= int(rng.integers(1, 256))
    with suppress(ValueError):
        check(bytes(data))
