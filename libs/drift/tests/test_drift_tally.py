"""What is counted of windows, and adding it up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frond.drift import Look, Tally
from frond.drift.sampling import place
from frond.drift.tally import byte_score_counts, score_counts
from frond.models import WindowDetections, WindowPlanes

IMAGE = "ab" * 16


@dataclass
class Seen:
    data: np.ndarray
    valid: np.ndarray | None = None


def detections(*scores: float) -> WindowDetections:
    n = len(scores)
    boxes = np.zeros((n, 4), np.float32)
    return WindowDetections(boxes, np.array(scores, np.float32), np.zeros(n, np.int32))


counts = hnp.arrays(np.int64, (2, 256), elements=st.integers(0, 1 << 40), fill=st.just(0))
tallies = st.builds(
    Tally,
    counts,
    hnp.arrays(np.int64, 100, elements=st.integers(0, 1 << 40), fill=st.just(0)),
    st.integers(0, 99),
    st.integers(0, 99),
    st.integers(0, 99),
    st.integers(0, 99),
)


@settings(max_examples=30, deadline=None)
@given(tallies, tallies, tallies)
def test_tallies_add_up_however_they_are_put_together(a: Tally, b: Tally, c: Tally) -> None:
    """Adding is associative and commutative, and nothing is what it begins from."""
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Tally.empty(2) == a
    assert a + Tally.empty(2) is not a


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([8, 64, 100, 512]),
    st.integers(1, 3),
    st.sampled_from(["CHW", "HWC"]),
    st.integers(0, 2**32),
)
def test_what_is_counted_is_the_lattice_of_valid_pixels(
    side: int, bands: int, layout: str, seed: int
) -> None:
    """Each valid pixel of the lattice counts once in its band, and no other pixel does."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (bands, side, side), dtype=np.uint8)
    valid = rng.random((side, side)) < 0.7
    rows, columns = place(IMAGE, 5).lattice(side)
    look = Look(IMAGE, [5], 1.0, None)
    shown = data if layout == "CHW" else np.ascontiguousarray(data.transpose(1, 2, 0))
    tally = look.tally([Seen(shown, valid)], layout, bands)
    for band in range(bands):
        wanted = np.bincount(data[band, rows, columns][valid[rows, columns]].ravel(), minlength=256)
        assert tally.bands[band].tolist() == wanted.tolist()
    assert (tally.windows, tally.run, tally.scored) == (1, 1, 0)
    assert 0 < tally.pixels <= 127**2


def test_chunks_of_one_image_count_as_the_whole() -> None:
    """However windows are cut into chunks, the same of them count."""
    rng = np.random.default_rng(1)
    windows = [Seen(rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)) for _ in range(40)]
    whole = Look(IMAGE, range(40), 0.3, None).tally(windows, "CHW", 3)
    parts = Tally.empty(3)
    for first in range(0, 40, 7):
        some = range(first, min(first + 7, 40))
        parts += Look(IMAGE, some, 0.3, None).tally([windows[i] for i in some], "CHW", 3)
    assert parts == whole
    assert 0 < whole.windows < whole.run == 40


def test_the_share_is_kept() -> None:
    """About as many windows are looked at as asked for, and more when more are asked for."""
    ranks = np.array([place(IMAGE, i).rank for i in range(4000)])
    for share in (0.1, 0.25, 0.9):
        assert abs(float((ranks < share).mean()) - share) < 0.03
    assert Look(IMAGE, range(100), 0.0, None).tally([], "CHW", 3).windows == 0


def test_lattices_do_not_lie_on_one_another() -> None:
    """Every offset comes up, in rows and in columns: what repeats every eight pixels is seen whole."""
    lattices = [place(IMAGE, i).lattice(512) for i in range(200)]
    assert {rows.start for rows, _ in lattices} == {columns.start for _, columns in lattices}
    assert {rows.start for rows, _ in lattices} == set(range(8))
    assert len({(rows.start, columns.start) for rows, columns in lattices}) > 40


def test_scores_below_the_floor_and_of_windows_not_looked_at_do_not_count() -> None:
    """Scores are of the windows whose pixels count; 1.0 is in the last bin."""
    chosen = [i for i in range(50) if place(IMAGE, i).rank < 0.5]
    look = Look(IMAGE, range(50), 0.5, 0.25)
    for i in range(50):
        look.saw(i, detections(1.0, 0.5, 0.25, 0.1))
    look.saw(chosen[0], detections(0.1))
    look.saw(chosen[1], detections())
    windows = [Seen(np.zeros((1, 16, 16), np.uint8)) for _ in range(50)]
    tally = look.tally(windows, "CHW", 1)
    assert tally.scored == len(chosen) == tally.windows
    assert {i: int(n) for i, n in enumerate(tally.scores) if n} == dict.fromkeys(
        (25, 50, 99), len(chosen) - 2
    )
    assert tally.with_finds == len(chosen) - 2


def test_a_segmentations_scores_are_the_best_class_of_valid_pixels() -> None:
    """The rival is no class, and a pixel without data has no score."""
    planes = np.zeros((3, 64, 64), np.uint8)
    planes[0], planes[1], planes[2] = 51, 204, 255
    valid = np.zeros((64, 64), bool)
    valid[:, :32] = True
    look = Look(IMAGE, [0], 1.0, 0.0)
    look.saw(0, WindowPlanes(planes))
    tally = look.tally([Seen(np.zeros((1, 64, 64), np.uint8), valid)], "CHW", 1)
    assert tally.scores[80] == tally.scores.sum() == 64 * 32


@pytest.mark.parametrize("value", range(0, 256, 5))
def test_bytes_and_scores_fall_into_the_same_bins(value: int) -> None:
    """A score as a byte is counted where the same score as a number is, or beside it by rounding."""
    by_byte = int(byte_score_counts(np.array([value], np.uint8)).argmax())
    by_score = int(score_counts(np.array([value / 255], np.float32), 0.0).argmax())
    assert abs(by_byte - by_score) <= 1


def test_more_bands_than_are_looked_at() -> None:
    """Of a model of a hundred bands the first 64 count: an event stays smaller than a message."""
    look = Look(IMAGE, [0], 1.0, None)
    assert look.tally([Seen(np.zeros((100, 8, 8), np.uint8))], "CHW", 100).bands.shape == (64, 256)
