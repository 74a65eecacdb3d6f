"""The errors themselves."""

from __future__ import annotations

import pickle

import pytest

from frond.contracts.errors import FrondError, ModelUnavailable, ObjectMissing, RasterRejected
from frond.contracts.reasons import Reason


@pytest.mark.parametrize(
    "error",
    [
        RasterRejected(Reason.CORRUPT, "The file is cut off."),
        ModelUnavailable("http://server/v2: HTTP 500", "HTTP 500"),
        ObjectMissing("reading a: NoSuchKey"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_travel_between_processes(error: FrondError) -> None:
    """Who gets one from another process has its class, its message and all that it tells."""
    got = pickle.loads(pickle.dumps(error))
    assert type(got) is type(error)
    assert str(got) == str(error)
    assert vars(got) == vars(error)
