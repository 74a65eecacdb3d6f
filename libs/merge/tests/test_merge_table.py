"""The columns: what a window owns, the total order, Arrow files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts.plan import WindowGrid
from frond.merge import CUT, TOUCHES_BAND, Detections, from_ipc, own, to_ipc

GRID = WindowGrid(width=2000, height=1500, size=640, margin=64)


def seen_by_all(box: tuple[float, float, float, float], grid: WindowGrid) -> list[Detections]:
    """What each window contributes when all of them see one object exactly."""
    found = []
    for window in range(grid.count):
        w = grid.window(window)
        x0, y0, x1, y1 = max(box[0], w.x0), max(box[1], w.y0), min(box[2], w.x1), min(box[3], w.y1)
        if x1 - x0 > 1 and y1 - y0 > 1:
            found.append(own([(x0, y0, x1, y1)], [0.9], [0], window, grid))
    return [d for d in found if len(d)]


class TestOwn:
    def test_an_object_inside_a_core_is_final(self) -> None:
        """Far from every neighbour, one window owns it and nothing needs matching."""
        (one,) = seen_by_all((100.0, 100.0, 130.0, 140.0), GRID)
        assert one.flags.tolist() == [0]
        assert one.boxes.tolist() == [[100, 100, 130, 140]]

    def test_the_window_that_sees_only_a_part_says_so(self) -> None:
        """A box that ends at a window's edge is flagged as cut, unless the image ends there."""
        w = GRID.window(1)
        d = own([(w.x0, 300, w.x0 + 250, 340)], [0.5], [0], 1, GRID)
        assert d.flags.tolist() == [TOUCHES_BAND | CUT]
        d = own([(0, 0, 20, 20)], [0.5], [0], 0, GRID)
        assert d.flags.tolist() == [0]

    @given(
        st.floats(0, 1990), st.floats(0, 1490), st.floats(4, 300), st.floats(4, 300)
    )  # fmt: skip
    def test_no_object_is_lost(self, x: float, y: float, w: float, h: float) -> None:
        """Wherever an object lies, at least one window keeps it."""
        box = (x, y, min(x + w, 2000.0), min(y + h, 1500.0))
        assert seen_by_all(box, GRID)

    @given(
        x=st.floats(500, 1200),
        side=st.floats(8, 100),
        shift=st.floats(-0.24, 0.24),
        other=st.floats(-0.24, 0.24),
    )
    def test_disagreeing_windows_do_not_both_let_go(
        self, x: float, side: float, shift: float, other: float
    ) -> None:
        """Two estimates with IoU ≥ 1/3 of an object at a border: one is kept, or both and flagged."""
        kept = []
        for window, by in ((0, shift), (1, other)):
            left = x + by * side
            if left >= GRID.window(window).x0 and left + side <= GRID.window(window).x1:
                kept.append(own([(left, 200, left + side, 200 + side)], [0.9], [0], window, GRID))
        if len(kept) == 2:
            assert len(kept[0]) + len(kept[1]) >= 1
            if len(kept[0]) + len(kept[1]) == 2:
                assert all(d.flags[0] & TOUCHES_BAND for d in kept)

    def test_scaled_pixels_become_raster_pixels(self) -> None:
        """Boxes come in at the model's GSD and go out in the raster's own pixels."""
        grid = WindowGrid(width=500, height=500, size=640, margin=64, scale=0.5)
        d = own([(10, 20, 30, 40)], [0.5], [2], 0, grid, width=999, height=999)
        assert d.boxes.tolist() == [[20, 40, 60, 80]]
        d = own([(480, 480, 519, 519)], [0.5], [2], 0, grid, width=999, height=999)
        assert d.boxes.tolist() == [[960, 960, 999, 999]]

    @pytest.mark.parametrize("axis", [0, 1])
    def test_a_small_images_reflection_gives_no_rows(self, axis: int) -> None:
        """An object 3 px from the edge and its mirror image, whose box sticks into the image: one row."""
        grid = WindowGrid(width=400, height=400, size=512, margin=64)
        seen = np.array([(357.0, 100, 397, 145), (399.5, 100, 445, 145)])
        seen = seen if axis == 0 else seen[:, [1, 0, 3, 2]]
        d = own(seen, [0.6, 0.7], [0, 0], 0, grid)
        assert d.boxes.tolist() == [seen[0].tolist()]

    def test_only_reflections_are_left_out(self) -> None:
        """What the edge cuts stays, seen as one with its reflection, and so does what covers the image;
        where an image is a window or larger its edge is no mirror."""
        grid = WindowGrid(width=400, height=400, size=512, margin=64)
        cut, covering = (380, 100, 419, 140), (1, 100, 512, 500)
        # a model of large objects errs by more
        large = (310, 100, 502, 300)
        assert len(own([cut, covering, large], [0.5] * 3, [0] * 3, 0, grid)) == 3
        for size in (512, 600):
            whole = WindowGrid(width=size, height=size, size=512, margin=64)
            box = (size - 1, 100, size + 45, 145)
            assert len(own([box], [0.5], [0], whole.cols - 1, whole)) == 1

    def test_what_is_no_box_is_dropped(self) -> None:
        """NaN, infinity and boxes without area never reach a result."""
        bad = [(np.nan, 0, 5, 5), (0, 0, np.inf, np.nan), (9, 9, 9, 20), (30, 30, 20, 20)]
        assert len(own(bad, [0.5] * 4, [0] * 4, 0, GRID)) == 0
        assert len(own([(1, 1, 9, 9)], [np.nan], [0], 0, GRID)) == 0
        assert len(own(np.empty((0, 4)), [], [], 0, GRID)) == 0


rows = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(0, 3), st.integers(1, 4), st.integers(0, 2), st.integers(0, 9)
    ),
    max_size=60,
)  # fmt: skip


def table(values: list[tuple[int, int, int, int, int]]) -> Detections:
    v = np.array(values, dtype=float).reshape(-1, 5)
    return Detections.of(
        np.c_[v[:, 0], v[:, 1], v[:, 0] + v[:, 2], v[:, 1] + v[:, 2]], v[:, 4] / 9, v[:, 3], v[:, 1]
    )


class TestOrder:
    @given(rows, st.randoms())
    def test_the_order_is_total(self, values: list[tuple[int, ...]], random: object) -> None:
        """Any permutation of the rows sorts to the same bytes."""
        shuffled = list(values)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        assert to_ipc(table(values).sorted()) == to_ipc(table(shuffled).sorted())  # type: ignore[arg-type]

    @given(rows)
    def test_the_quick_way_is_the_plain_way(self, values: list[tuple[int, ...]]) -> None:
        """The packed integer key orders as the full comparison does."""
        d = table(values)  # type: ignore[arg-type]
        plain = d.take(np.lexsort(d._order_keys()))
        assert to_ipc(plain) == to_ipc(d.sorted())

    @given(rows)
    def test_once_leaves_out_what_repeats(self, values: list[tuple[int, ...]]) -> None:
        """Each distinct row is there once, in the same order."""
        d = table(values)  # type: ignore[arg-type]
        got = d.take(d.order(once=True))
        plain = d.sorted()
        columns = (plain.scores, plain.classes, plain.windows, plain.flags)
        every = [(*plain.boxes[i], *(c[i] for c in columns)) for i in range(len(plain))]
        first = [i for i, row in enumerate(every) if row not in every[:i]]
        assert to_ipc(got) == to_ipc(plain.take(first))

    @pytest.mark.parametrize("classes", [1, 4000])
    def test_what_the_packed_key_has_no_room_for_is_still_compared(self, classes: int) -> None:
        """Many rows, many classes, far coordinates: x0 is cut in the key, not in the order."""
        rng = np.random.default_rng(classes)
        n = 70_000
        corner = rng.integers(0, 3, (n, 2)) / 256 + rng.integers(0, 2, (n, 1)) * 4_000_000.0
        d = Detections.of(
            np.c_[corner, corner + 1], rng.integers(0, 3, n) / 3, rng.integers(0, classes, n)
        )
        assert np.array_equal(d.sorted().boxes, d.take(np.lexsort(d._order_keys())).boxes)

    def test_values_outside_the_packed_key_still_sort(self) -> None:
        """Negative coordinates and classes beyond twelve bits take the plain way."""
        d = Detections.of([(5, 0, 6, 1), (-5, 0, 6, 1)], [0.5, 0.5], [9000, 9000]).sorted()
        assert d.boxes[:, 0].tolist() == [-5, 5]


class TestArrow:
    @settings(max_examples=30)
    @given(rows)
    def test_a_file_gives_back_what_went_in(self, values: list[tuple[int, ...]]) -> None:
        """Round trip, and the same rows give the same bytes."""
        d = table(values)  # type: ignore[arg-type]
        data = to_ipc(d, {"b": "2", "a": "1"})
        back, metadata = from_ipc(data)
        assert metadata == {"a": "1", "b": "2"}
        assert to_ipc(back, {"a": "1", "b": "2"}) == data
        assert len(back) == len(d)

    @pytest.mark.parametrize("data", [b"", b"ARROW1\0\0rubbish", b"\0" * 100])
    def test_rubbish_is_named_as_such(self, data: bytes) -> None:
        """Bytes that are no file of detections raise ValueError, nothing stranger."""
        with pytest.raises(ValueError, match="Arrow"):
            from_ipc(data)

    def test_a_cut_off_file_is_named_as_such(self) -> None:
        """So does a file that lost its end."""
        data = to_ipc(table([(1, 1, 1, 1, 1)] * 20))
        with pytest.raises(ValueError, match="Arrow"):
            from_ipc(data[: len(data) // 2])
