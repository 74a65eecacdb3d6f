"""Which windows a shadow has its share in."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from frond.contracts.jobs import ShadowWish
from frond.contracts.shadows import in_share, shadow_windows

MANY = range(20_000)


def test_the_same_windows_every_time() -> None:
    """In any order and any grouping, whether or not the ETag is quoted: figures that never change."""
    whole = shadow_windows("abc", MANY, 0.1)
    assert shadow_windows('"abc"', MANY, 0.1) == whole
    parts = [shadow_windows("abc", MANY[i : i + 32], 0.1) for i in reversed(range(0, 20_000, 32))]
    assert sorted(w for part in parts for w in part) == whole
    # results of a year ago are compared by it
    assert shadow_windows("abc", range(60), 0.1) == FROZEN


def test_a_share_is_about_a_share_and_of_other_windows_in_other_images() -> None:
    """None at almost nothing, all at 1, those of a smaller share among those of a larger one."""
    tenth, third = (set(shadow_windows("abc", MANY, s)) for s in (0.1, 0.3))
    assert abs(len(tenth) - 2000) < 150 and abs(len(third) - 6000) < 250
    assert tenth < third
    assert shadow_windows("abc", MANY, 1.0) == list(MANY)
    assert not any(in_share("abc", w, 1e-15) for w in MANY)
    other = set(shadow_windows("abd", MANY, 0.1))
    assert abs(len(tenth & other) - 200) < 60


@pytest.mark.parametrize("share", [0, -0.1, 1.1, True, float("nan"), "much"])
def test_what_is_no_share(share: object) -> None:
    """Is refused, and so is a wish without a version."""
    with pytest.raises(ValidationError):
        ShadowWish.model_validate({"model": "palms@staging", "share": share})
    with pytest.raises(ValidationError):
        ShadowWish.model_validate({"model": ""})


FROZEN = [5, 16, 34, 40, 42]
