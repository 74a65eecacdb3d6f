"""Limits a key, on a clock of the test's own."""

from __future__ import annotations

import pytest

from frond.auth import Principal, Rates, Scope, Throttled
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason


class Time:
    """A clock that sleeping moves."""

    now = 50.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_requests_above_the_rate_are_refused() -> None:
    """After the burst one request each 1/rate seconds passes; keys do not share; 429 says when."""
    time = Time()
    rates = Rates(2.0, 0, clock=time)
    passed = 0
    with pytest.raises(Throttled) as caught:
        for _ in range(100):
            rates.admit("a")
            passed += 1
    assert passed == 5 and caught.value.retry_after == 1
    assert caught.value.reason is Reason.RATE_LIMITED
    rates.admit("b")
    for _ in range(10):
        time.now += 0.5
        rates.admit("a")
        with pytest.raises(Throttled):
            rates.admit("a")


async def test_bodies_are_paced() -> None:
    """A body of any size arrives, at the rate after the burst; two of one key share it."""
    time = Time()
    rates = Rates(0, 1 << 20, clock=time, sleep=time.sleep)
    for _ in range(64):
        rates.admit_body("a")
        await rates.pace("a", 1 << 20)
    assert 62.9 <= time.now - 50 <= 63.1
    before = time.now
    await rates.pace("b", 1 << 20)
    assert time.now == before


def test_a_body_behind_a_long_queue_is_refused_before_it_is_read() -> None:
    """What was promised directly to the store counts; who is far behind is told when to come."""
    time = Time()
    rates = Rates(0, 1_000_000, clock=time)
    rates.charge("a", 101_000_000, 3600)
    with pytest.raises(Throttled) as caught:
        rates.admit_body("a")
    assert caught.value.retry_after == 70
    rates.admit_body("b")
    time.now += 70
    rates.admit_body("a")


async def test_what_goes_straight_to_the_store_slows_nothing_that_comes_in() -> None:
    """A body under way, a JSON one too, is paced by what came here alone; and nobody waits for bytes
    longer than they have to come."""
    time = Time()
    rates = Rates(0, 1_000_000, clock=time, sleep=time.sleep)
    rates.charge("a", 1 << 60, 3600)
    await rates.pace("a", 1000)
    assert time.now == 50
    with pytest.raises(Throttled) as caught:
        rates.admit_body("a")
    assert 3500 < caught.value.retry_after <= 3600


def test_what_was_promised_together_is_waited_for_no_longer_than_it_may_come() -> None:
    """Large images begun side by side lock their key out until their addresses have died, whichever
    live longer, and not for one such time each; small ones count in full."""
    time = Time()
    rates = Rates(0, 1_000_000, clock=time)

    def waits() -> int:
        with pytest.raises(Throttled) as caught:
            rates.admit_body("a")
        return 30 + caught.value.retry_after

    for _ in range(8):
        rates.charge("a", 50_000_000_000, 3600)
    assert 3595 < waits() <= 3600
    rates.charge("a", 50_000_000_000, 60)
    assert 3595 < waits() <= 3600
    time.now += 1800
    rates.charge("a", 100_000_000, 3600)
    assert 1895 < waits() <= 1900
    rates.charge("a", 50_000_000_000, 3600)
    assert 3595 < waits() <= 3600


async def test_nothing_is_limited_by_default() -> None:
    """Rates of 0 keep no count at all."""
    rates = Rates(0, 0)
    for _ in range(10_000):
        rates.admit("a")
    rates.charge("a", 1 << 60, 3600)
    rates.admit_body("a")
    await rates.pace("a", 1 << 60)


def test_who_sees_and_may() -> None:
    """A tenant sees its own only; no tenant is nobody's but the admin's; admin includes the rest."""
    ana = Principal("key:1", "acme", frozenset({Scope.READ}))
    assert ana.sees("acme") and not ana.sees("beta") and not ana.sees(None) and not ana.sees("")
    ana.require(Scope.READ)
    with pytest.raises(JobRejected, match="submit") as caught:
        ana.require(Scope.SUBMIT)
    assert caught.value.reason is Reason.FORBIDDEN
    nobody = Principal("x", None, frozenset({Scope.READ}))
    assert not nobody.sees(None)
    boss = Principal("key:2", "beta", frozenset({Scope.ADMIN}))
    assert all(boss.may(s) for s in Scope) and boss.sees("acme") and boss.sees(None)
    assert ana.own("k") != boss.own("k") != nobody.own("k") == "k"
