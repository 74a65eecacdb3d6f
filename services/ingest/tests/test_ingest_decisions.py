"""Names, ranges, cursors: decisions without a store or a broker."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.contracts.errors import UserError
from frond.contracts.reasons import Reason
from frond.ingest import names
from frond.ingest.cursors import read_cursor, write_cursor
from frond.ingest.problems import Refused
from frond.ingest.ranges import Slice, Unsatisfiable, etag_matches, parse_range
from frond.ingest.views import message, moment
from frond.runtime import Egress

_files = st.lists(
    st.tuples(st.sampled_from(["a.tif", "a (2).tif", "b", "x/y.tif"]), st.sampled_from("pqr"))
)


@given(_files)
def test_distinct_names(files: list[tuple[str, str]]) -> None:
    """Names never clash, the first of a name keeps it, and equal files become one image."""
    chosen = names.distinct(files)
    kept = [c for c in chosen if c is not None]
    assert len(kept) == len(set(kept)) == len(set(files))
    first: set[str] = set()
    for (name, _), c in zip(files, chosen, strict=True):
        if name not in first:
            assert c == name
        first.add(name)


def test_second_of_a_name_gets_a_number_before_the_suffix() -> None:
    assert names.distinct([("s.tif", "1"), ("s.tif", "2"), ("s.tif", "1")]) == [
        "s.tif", "s (2).tif", None,
    ]  # fmt: skip
    assert names.numbered("d/.hidden", 2) == "d/.hidden (2)"


def test_many_files_of_one_name() -> None:
    """As long as a form is, its names take linear time."""
    files = [("s.tif", str(n)) for n in range(50_000)]
    chosen = names.distinct(files)
    assert chosen[0] == "s.tif" and chosen[-1] == "s (50000).tif"


def test_job_ids_from_keys_are_stable() -> None:
    """A request sent again after a database was lost names the same job."""
    assert names.new_job_id("k", "upload") == names.new_job_id("k", "upload")
    assert names.new_job_id("k", "upload") != names.new_job_id("k", "jobs")
    assert names.new_job_id() != names.new_job_id()


@pytest.mark.parametrize("url", ["ftp://x/y", "http://", "nonsense", "http://a b/", "http://h:x/"])
def test_bad_webhooks(url: str) -> None:
    with pytest.raises(UserError):
        names.check_webhook(url, Egress())


def test_webhooks_into_private_networks_are_refused_at_the_door() -> None:
    """What can be told without resolving; the operator's list lets it pass."""
    with pytest.raises(UserError, match="FROND_EGRESS_ALLOW"):
        names.check_webhook("http://169.254.169.254/latest", Egress())
    assert names.check_webhook("http://127.0.0.1:9999/", Egress("127.0.0.0/8"))


def test_good_webhooks_and_emails() -> None:
    assert names.check_webhook("https://example.org/hook?x=1", Egress())
    assert names.check_webhook("", Egress()) is None
    assert names.check_email("a@b.c", Egress()) == "a@b.c"
    assert names.check_email("", Egress()) is None
    for bad in ("a", "a@", "@b", "a b@c", "a@b\nBcc: x@y", "a@b.c\n", "a@[169.254.169.254]"):
        with pytest.raises(Refused) as refused:
            names.check_email(bad, Egress())
        assert (refused.value.reason, refused.value.status) == (Reason.BAD_REQUEST, 422)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None), ("bytes=0-0", Slice(0, 1)), ("bytes=2-", Slice(2, 8)),
        ("bytes=-3", Slice(7, 3)), ("bytes=-30", Slice(0, 10)), ("bytes=5-99", Slice(5, 5)),
        ("bytes=5-2", None), ("bytes=" + "9" * 5000 + "-", None), ("items=0-1", None), ("bytes=0-1,3-4", None), ("bytes=-", None),
    ],
)  # fmt: skip
def test_ranges(header: str | None, expected: Slice | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_unsatisfiable_ranges(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 10)


def test_etags() -> None:
    assert etag_matches('"a", W/"b"', "b") and etag_matches("*", "x")
    assert not etag_matches('"a"', "b") and not etag_matches(None, "b")


@given(st.integers(-(1 << 52), 1 << 52), st.text())
def test_cursors_come_back(number: int, text: str) -> None:
    assert read_cursor(write_cursor(number, text), int, str) == (number, text)


@given(st.text())
def test_foreign_cursors_are_refused(text: str) -> None:
    """Whatever a client makes up: a problem or, by luck, a cursor; never an exception."""
    with contextlib.suppress(Refused):
        read_cursor(text, int, str)


@pytest.mark.parametrize(
    ("status", "expected", "received", "completed", "told"),
    [
        ("running", 5, 3, 1, "Running; 1 of 5 images done; 2 not received yet."),
        ("running", 5, 5, 1, "Running; 1 of 5 images done."),
        ("running", None, 3, 1, "Running; 1 of ? images done."),
        ("successful", 2, 2, 2, "Ended; 2 of 2 images completed."),
        (
            "successful", 2, 3, 2,
            "Ended; 2 of 2 images completed; 1 more than the job's size came and was left out.",
        ),
        (
            "failed", 1, 2, 0,
            "Ended; not one of 1 images completed; 1 more than the job's size came and was left out.",
        ),
    ],
)  # fmt: skip
def test_a_size_that_does_not_fit_the_images_is_told(
    status: str, expected: int | None, received: int, completed: int, told: str
) -> None:
    """A publisher that named too large a size reads what its job waits for; too small, what is not
    in it."""
    failed = expected if status == "failed" else 0
    images = {
        "expected": expected, "received": received, "completed": completed, "failed": failed,
    }  # fmt: skip
    assert message({"status": status, "images": images}) == told


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("9999-12-31T23:59:59-14:00", datetime.max), ("0001-01-01T00:00:00+14:00", datetime.min),
        ("2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5)),
    ],
)  # fmt: skip
def test_any_time_that_a_sender_writes_is_shown(written: str, shown: datetime) -> None:
    """Also one that is no day in UTC: the list of jobs would end in an error for everybody."""
    ms = int(datetime.fromisoformat(written).timestamp() * 1000)
    assert moment(ms) == shown.replace(microsecond=0, tzinfo=UTC)
    assert moment(-(2**63)) is not None and moment(2**63 - 1) is not None
    assert moment(None) is None
