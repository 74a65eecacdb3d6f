"""The merge, held against a naive greedy reference and against the laws of a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts.plan import WindowGrid
from frond.merge import CUT, TOUCHES_BAND, Detections, merge, own, to_ipc

GRID = WindowGrid(width=4000, height=4000, size=640, margin=64)


def reference(d: Detections, threshold: float, match: str) -> Detections:
    """Greedy in rank order, each row against every kept one: O(n²), written for plainness."""
    d = d.sorted()
    rows = [
        (*map(float, d.boxes[i]), int(d.classes[i]), int(d.windows[i]), int(d.flags[i]), i)
        for i in range(len(d))
    ]
    distinct = {(*r[:-1], float(d.scores[r[-1]])): r for r in reversed(rows)}
    rows = sorted(distinct.values(), key=lambda r: r[-1])
    kept: list[tuple] = []
    for r in sorted(rows, key=lambda r: (r[6] & CUT) > 0):
        if all(not one_object(k, r, threshold, match) for k in kept):
            kept.append(r)
    return d.take(sorted(r[-1] for r in kept))


def one_object(better: tuple, worse: tuple, threshold: float, match: str) -> bool:
    if not (better[6] & TOUCHES_BAND and worse[6] & TOUCHES_BAND):
        return False
    if better[4] != worse[4] or better[5] == worse[5]:
        return False
    w = min(better[2], worse[2]) - max(better[0], worse[0])
    h = min(better[3], worse[3]) - max(better[1], worse[1])
    if w <= 0 or h <= 0:
        return False
    of_better = (better[2] - better[0]) * (better[3] - better[1])
    of_worse = (worse[2] - worse[0]) * (worse[3] - worse[1])
    if better[6] & CUT:
        measured_by = min(of_better, of_worse)
    elif worse[6] & CUT:
        measured_by = of_worse
    elif match == "ios":
        measured_by = min(of_better, of_worse)
    else:
        measured_by = of_better + of_worse - w * h
    return w * h >= threshold * measured_by


def scene(seed: int, n: int, extent: float, spread: float, windows: int) -> Detections:
    """Boxes from tiny to large, some twice, some cut, at any density."""
    rng = np.random.default_rng(seed)
    side = np.exp(rng.normal(2.5, spread, (n, 2)))
    corner = np.round(rng.uniform(0, extent, (n, 2)) * 4) / 4
    boxes = np.c_[corner, corner + np.maximum(side, 0.25)]
    d = Detections.of(
        boxes,
        rng.integers(0, 12, n) / 12,
        rng.integers(0, 2, n),
        rng.integers(0, windows, n),
        rng.choice([0, TOUCHES_BAND, TOUCHES_BAND, TOUCHES_BAND | CUT], n),
    )
    return d.take(rng.integers(0, max(n, 1), n + n // 5)) if n else d


scenes = st.builds(
    scene,
    seed=st.integers(0, 10**9),
    n=st.integers(0, 120),
    extent=st.sampled_from([10.0, 60.0, 300.0, 3000.0]),
    spread=st.sampled_from([0.0, 0.5, 1.5]),
    windows=st.integers(1, 9),
)
thresholds = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 1.0])


@settings(max_examples=300, deadline=None)
@given(scenes, thresholds, st.sampled_from(["iou", "ios"]))
def test_it_is_the_naive_greedy_result(d: Detections, threshold: float, match: str) -> None:
    """The index, the levels and the rounds change the time only."""
    got = merge(d, GRID, threshold, match=match)  # type: ignore[arg-type]
    assert to_ipc(got) == to_ipc(reference(d, threshold, match))


@settings(max_examples=60, deadline=None)
@given(scenes, thresholds)
def test_a_pile_too_dense_to_hold_is_merged_by_halves(d: Detections, threshold: float) -> None:
    """When matching pairs exceed the bound on memory, the result is the same."""
    got = merge(d, GRID, threshold, max_pairs=3)
    assert to_ipc(got) == to_ipc(reference(d, threshold, "iou"))


@settings(max_examples=60, deadline=None)
@given(scenes, st.integers(0, 10**9), st.integers(1, 7))
def test_it_is_a_function_of_the_set(d: Detections, seed: int, parts: int) -> None:
    """Any order, any duplication and any chunking give the same bytes."""
    rng = np.random.default_rng(seed)
    again = np.concatenate([np.arange(len(d)), rng.integers(0, max(len(d), 1), len(d) // 2)])
    rng.shuffle(again)
    shuffled = Detections.concat([d.take(p) for p in np.array_split(again, parts)])
    assert to_ipc(merge(d, GRID, 0.4)) == to_ipc(merge(shuffled, GRID, 0.4))


@settings(max_examples=40, deadline=None)
@given(scenes)
def test_merging_what_is_merged_changes_nothing(d: Detections) -> None:
    """A second merge keeps every row."""
    once = merge(d, GRID, 0.4)
    assert to_ipc(merge(once, GRID, 0.4)) == to_ipc(once)


@settings(max_examples=60, deadline=None)
@given(
    scenes,
    thresholds,
    st.sampled_from([(2.0**24, 2.0**24, 2.0**24 + 9, 2.0**24 + 9), (4e3, 50.0, 20.0, 20.0)]),
)
def test_an_odd_box_changes_nothing(
    d: Detections, threshold: float, odd: tuple[float, float, float, float]
) -> None:
    """One beyond what 32 bits hold, or the wrong way round, leaves the others alone."""
    more = Detections.concat([d, Detections.of([odd], [0.5], 0, 3, TOUCHES_BAND)])
    assert to_ipc(merge(more, GRID, threshold)) == to_ipc(reference(more, threshold, "iou"))


def test_a_long_chain_is_settled_in_linear_time() -> None:
    """Each box beats the next: every second one stays, without a round a link."""
    n = 200_000
    x = np.arange(n) * 4.0 % 40_000
    y = (np.arange(n) * 4 // 40_000) * 20.0
    d = Detections.of(
        np.c_[x, y, x + 10, y + 10], 1 - np.arange(n) / n, 0, np.arange(n) % 2, TOUCHES_BAND
    )
    big = WindowGrid(width=50_000, height=5_000, size=640, margin=64)
    assert len(merge(d, big, 0.42)) == n // 2


def reflected(objects: np.ndarray, grid: WindowGrid) -> np.ndarray:
    """The objects and their mirror images beyond the edges of an image smaller than a window, the
    latter so generous that those next to the edge stick into the image."""
    for axis, side in enumerate((grid.width, grid.height)):
        if side < grid.size:
            mirrored = objects.copy()
            mirrored[:, [axis, axis + 2]] = 2 * side - 1 - objects[:, [axis + 2, axis]]
            mirrored[:, axis] -= 8
            objects = np.concatenate([objects, mirrored])
    return objects


def views(
    objects: np.ndarray, grid: WindowGrid, rng: np.random.Generator, jitter: float
) -> list[Detections]:
    """What a good detector says of these objects, window by window, and of their reflections."""
    found = []
    objects = reflected(objects, grid)
    for index in range(grid.count):
        w = grid.window(index)
        seen = objects + rng.normal(0, jitter, objects.shape) if jitter else objects
        low, high = np.array((w.x0, w.y0)), np.array((w.x0, w.y0)) + grid.size
        part = np.clip(seen, (*low, *low), (*high, *high))
        inside = ((part[:, 2:] - part[:, :2]) > 3).all(axis=1)
        found.append(
            own(part[inside], rng.uniform(0.5, 1, inside.sum()), 0 * seen[inside, 0], index, grid)
        )
    return found


@pytest.mark.parametrize("jitter", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1.0, 0.5, 1.7])
@pytest.mark.parametrize("size", [(2000, 1500), (600, 1900), (641, 641), (300, 200)])
def test_each_planted_object_comes_out_once(
    size: tuple[int, int], scale: float, jitter: float
) -> None:
    """Whole objects on a lattice, up to the lower and right edges, each seen by every window it reaches:
    one row each, in place. Of what is reflected there where the image is small: none."""
    grid = WindowGrid(width=size[0], height=size[1], size=640, margin=64, scale=scale)
    rng = np.random.default_rng(7)
    xs, ys = np.meshgrid(np.arange(3, size[0] - 60, 47.0), np.arange(3, size[1] - 60, 53.0))
    corner = np.array(size) - np.c_[xs.ravel(), ys.ravel()] - rng.uniform(0, 4, (xs.size, 2))
    objects = np.c_[corner - rng.uniform(20, 38, corner.shape), corner]
    got = merge(Detections.concat(views(objects, grid, rng, jitter)), grid, 0.5)
    assert len(got) == len(objects)
    centres = (got.boxes[:, :2] + got.boxes[:, 2:]) / 2 * scale
    want = (objects[:, :2] + objects[:, 2:]) / 2
    distance = np.abs(centres[:, None] - want[None]).max(axis=2)
    assert (distance.min(axis=1) < 1e-2 + 4 * jitter).all()
    assert len(set(distance.argmin(axis=1).tolist())) == len(objects)


def test_a_whole_crown_beats_the_part_a_neighbour_saw() -> None:
    """However sure a window is of the half it saw, the window that saw all of it wins."""
    grid = WindowGrid(width=1200, height=600, size=640, margin=100)
    whole = own([(430, 200, 634, 400)], [0.6], [0], 0, grid)
    part = own([(grid.window(1).x0, 200, 634, 400)], [0.99], [0], 1, grid)
    assert len(whole) == len(part) == 1
    assert part.flags[0] & CUT
    assert not whole.flags[0] & CUT
    got = merge(Detections.concat([part, whole]), grid, 0.9)
    assert got.boxes.tolist() == whole.boxes.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9), st.integers(16, 100))
def test_what_is_not_flagged_needs_no_matching(seed: int, threshold: float, margin: int) -> None:
    """Flagging every row gives the same result: the flag saves time and decides nothing."""
    grid = WindowGrid(width=900, height=700, size=256, margin=margin)
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 680, (150, 2))
    objects = np.c_[corner, corner + rng.uniform(5, 80, (150, 2))]
    d = Detections.concat(views(objects, grid, rng, 4.0))
    every = Detections(d.boxes, d.scores, d.classes, d.windows, d.flags | np.uint8(TOUCHES_BAND))
    got, want = merge(d, grid, threshold), merge(every, grid, threshold)
    assert np.array_equal(got.boxes, want.boxes)
    assert np.array_equal(got.windows, want.windows)


def test_what_cannot_be_is_refused() -> None:
    """A window outside the grid or a threshold outside 0…1 is the caller's error."""
    d = Detections.of([(0, 0, 1, 1)], [0.5], 0, 10**6)
    with pytest.raises(ValueError, match="grid"):
        merge(d, GRID, 0.5)
    with pytest.raises(ValueError, match="threshold"):
        merge(Detections.empty(), GRID, 1.5)
    assert len(merge(Detections.empty(), GRID, 0.5)) == 0


@pytest.mark.slow
def test_a_million_in_bounded_time() -> None:
    """A crowded million from random windows takes about four times as long as a quarter of it."""
    import time

    def seconds(n: int) -> float:
        d = scene(1, 1, 10, 0, 1)
        rng = np.random.default_rng(0)
        edge = np.sqrt(n * 144.0)
        corner = rng.uniform(0, edge, (n, 2))
        boxes = np.c_[corner, corner + rng.uniform(14, 34, (n, 2))]
        grid = WindowGrid(width=int(edge) + 40, height=int(edge) + 40, size=640, margin=64)
        d = Detections.of(boxes, rng.random(n), 0, rng.integers(0, grid.count, n), TOUCHES_BAND)
        start = time.process_time()
        merge(d, grid, 0.5)
        return time.process_time() - start

    seconds(20_000)
    small, large = seconds(250_000), seconds(1_000_000)
    # generous: the bench measures, this catches an index that is gone
    assert large < 10 * max(small, 0.1)
