"""Laws of the window grid, for every size of image, window and margin."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts.plan import WindowGrid


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    size = draw(st.integers(8, 96))
    return WindowGrid(
        width=draw(st.integers(1, 400)),
        height=draw(st.integers(1, 400)),
        size=size,
        margin=draw(st.integers(0, (size - 8) // 2)),
    )


@given(grids())
@settings(max_examples=150, deadline=None)
def test_cores_tile_the_image_exactly(grid: WindowGrid) -> None:
    """Each pixel is in one core: no gap, no overlap."""
    columns = [grid.core(i) for i in range(grid.cols)]
    rows = [grid.core(i * grid.cols) for i in range(grid.rows)]
    assert [c.x0 for c in columns] == [0, *(c.x1 for c in columns[:-1])]
    assert columns[-1].x1 == grid.width
    assert [r.y0 for r in rows] == [0, *(r.y1 for r in rows[:-1])]
    assert rows[-1].y1 == grid.height
    assert sum(grid.core(i).width * grid.core(i).height for i in range(grid.count)) == (
        grid.width * grid.height
    )
    assert all(grid.core(i).width > 0 and grid.core(i).height > 0 for i in range(grid.count))


@given(grids())
@settings(max_examples=150, deadline=None)
def test_windows_hold_their_core_with_its_margin(grid: WindowGrid) -> None:
    """A window is inside the image, has the model's size, and margins where the image goes on."""
    for i in range(grid.count):
        core, window = grid.core(i), grid.window(i)
        assert 0 <= window.x0 <= core.x0 < core.x1 <= window.x1 <= grid.width
        assert 0 <= window.y0 <= core.y0 < core.y1 <= window.y1 <= grid.height
        assert window.width == min(grid.size, grid.width)
        assert window.height == min(grid.size, grid.height)
        for near, far, edge in (
            (core.x0 - window.x0, window.x1 - core.x1, (core.x0 == 0, core.x1 == grid.width)),
            (core.y0 - window.y0, window.y1 - core.y1, (core.y0 == 0, core.y1 == grid.height)),
        ):
            assert near >= grid.margin or edge[0]
            assert far >= grid.margin or edge[1]


@given(grids(), st.integers(1, 64))
@settings(max_examples=150, deadline=None)
def test_chunks_hold_each_window_once(grid: WindowGrid, windows: int) -> None:
    """Blocks part the grid; none is larger than asked for, and each is in ascending order."""
    blocks = list(grid.blocks(windows))
    assert sorted(i for b in blocks for i in b) == list(range(grid.count))
    assert all(0 < len(b) <= windows for b in blocks)
    assert all(b == sorted(b) for b in blocks)
