"""What is read ahead is bounded, partition by partition, and is forgotten when it is lost."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from frond.bus.ahead import Ahead, job_of
from frond.contracts.envelope import encode
from frond.contracts.golden import GOLDEN

ZERO, ONE = TopicPartition("t", 0), TopicPartition("t", 1)


def message(value: bytes) -> Any:
    return SimpleNamespace(value=value, key=None, headers=[])


def of(job: str) -> Any:
    return message(b'{"job_id": "%s"}' % job.encode())


def test_each_partition_has_its_share() -> None:
    """A long partition leaves the other one room, and has room again as it is worked off."""
    ahead = Ahead(4)
    for _ in range(2):
        ahead.add(ZERO, of("a"))
    assert ahead.room([ZERO, ONE]) == [ONE]
    assert ahead.room([ZERO]) == [ZERO]  # alone, all of it is its share
    ahead.next(lambda _: False)
    assert ahead.room([ZERO, ONE]) == [ZERO, ONE]


def test_bytes_count_as_well() -> None:
    """Few large messages fill it like many small ones."""
    ahead = Ahead(1000, max_bytes=200_000)
    ahead.add(ZERO, message(b"x" * 100_000))
    assert ahead.room([ZERO, ONE]) == [ONE]


def test_a_lost_partition_is_forgotten() -> None:
    """What others read again is not handed out here."""
    ahead = Ahead(10)
    ahead.add(ZERO, of("a"))
    ahead.add(ONE, of("a"))
    ahead.forget(ZERO)
    read = ahead.next(lambda _: False)
    assert read is not None
    assert read.partition == ONE
    assert len(ahead) == 0
    assert ahead.of(ZERO) == ahead.of(ONE) == 0


@given(st.binary() | st.none())
def test_any_bytes_have_a_turn(value: bytes | None) -> None:
    """Whatever a message holds, it is queued under some job."""
    assert isinstance(job_of(value), str)


@pytest.mark.parametrize(
    "value",
    [
        *(encode(event, source="/test").value for event in GOLDEN.values()),
        b'{"job_id":"a","job_id":"b"}', b'{"job_id":"a","job\\u005fid":"b"}', b'{"x":1,"job_id":"a"}',
        b'{ "job_id" : "a" }', b'{"job_id":"a","x":{"job_id":"b"}}', b'{"job_id":"a\\n"}', b'{"job_id":""}',
    ],
)  # fmt: skip
def test_the_job_is_the_one_that_a_json_reader_finds(value: bytes) -> None:
    """However it is written; what is of no job (drift) shares one turn."""
    assert job_of(value) == json.loads(value).get("job_id", "")


@pytest.mark.parametrize("value", [b"[]", b'"x"', b"{}", b'{"job_id": 3}', b"\xff", b"[" * 99_999])
def test_what_names_no_job_shares_one_turn(value: bytes) -> None:
    """A flood of bytes that are no events takes one turn of those of the jobs, not each its own."""
    assert job_of(value) == ""
