"""Names of objects made of names of files."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from frond.contracts import keys


@pytest.mark.parametrize("name", ["a/b.tif", "x\ny.tif", "..", "é.tif", "o" * 200])
def test_a_name_that_looks_cleaned_is_not_the_cleaned_one(name: str) -> None:
    """Whoever calls a file what another's name was made into has an object of its own."""
    made = keys.safe_name(name)
    assert keys.safe_name(made) != made or made == name
    assert keys.job_upload("j", made) != keys.job_upload("j", name) or made == name


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_names_are_two_objects(one: str, other: str) -> None:
    """Whatever they are, and also where one is what the other was made into."""
    for second in (other, keys.safe_name(one)):
        assert (keys.safe_name(one) == keys.safe_name(second)) == (one == second)


@given(st.text(st.sampled_from("a.é航林🌴\u0301 "), min_size=1, max_size=300))
@example("航" * 90 + ".tif")
@example("п" * 130 + ".tif")
def test_every_name_fits(name: str) -> None:
    """Stores and disks take 255 bytes, and a form puts seven before it; what it ends in stays."""
    made = keys.safe_name(name)
    assert 0 < len(made.encode()) <= 248 - len("000001-")
    assert made.endswith(name[-4:]) or not name.endswith(".tif")


def test_plain_names_stay() -> None:
    """What needs no change is stored as it is called."""
    for name in ("scene.tif", "0123456789.tif", "0123456789-.tif"[1:], "пальма (2).tif", "п" * 110):
        assert keys.safe_name(name) == name


def test_newer_training_runs_are_listed_first() -> None:
    """However long ago, or ahead, the other one was asked for: its event's sender says when."""
    one = "0" * 32
    newest_first = [datetime(year, 1, 1, tzinfo=UTC) for year in (9999, 2026, 1971, 1)]
    listed = [keys.training_listed(when, one) for when in newest_first]
    assert listed == sorted(listed)
