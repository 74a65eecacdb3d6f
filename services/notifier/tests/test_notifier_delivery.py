"""What the next step of a delivery is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from frond.contracts.deliveries import Kind, State
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import ImageCounts, JobOutcome, JobSpec, JobStatus, ModelRef, WindowCounts
from frond.notifier.delivery import (
    LONGEST_ASKED_S,
    LONGEST_S,
    Addresses,
    Answer,
    Policy,
    after,
    asked_wait,
    backoff,
    classify,
    deliveries_of,
)
from frond.notifier.metrics import attempted

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVENT = JobCompleted(
    job_id="survey-7", status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED,
    images=ImageCounts(expected=1, completed=1), windows=WindowCounts(total=1, done=1),
    detections={"palm": 3}, finished=NOW,
)  # fmt: skip
SPEC = JobSpec(
    job_id="survey-7", model=ModelRef(name="m", digest="0" * 64),
    webhook_url="http://127.0.0.1:9/hook", email="a@b.example",
)  # fmt: skip
POLICY = Policy(max_retries=3, delay_s=2.0)
AGAIN = Answer(State.PENDING, "HTTP 500")


def test_a_job_asks_for_one_delivery_an_address() -> None:
    """The same event gives the same deliveries: an event that comes twice promises nothing new."""
    first = deliveries_of(EVENT, SPEC, NOW)
    later = deliveries_of(EVENT, SPEC, NOW + timedelta(hours=1))
    assert [d.kind for d in first] == [Kind.WEBHOOK, Kind.EMAIL]
    assert [d.id for d in first] == [d.id for d in later]
    assert len({d.id for d in first}) == 2
    assert all(d.event_id == EVENT.event_id and d.next_attempt == NOW for d in first)


def test_a_job_without_addresses_asks_for_none() -> None:
    spec = SPEC.model_copy(update={"webhook_url": None, "email": ""})
    assert deliveries_of(EVENT, spec, NOW) == []


def test_an_attempt_that_was_not_made_ends_nothing() -> None:
    """Its number is used up; the next one is due at once, were there no retries at all."""
    first = deliveries_of(EVENT, SPEC, NOW)[0]
    done = after(first, AGAIN._replace(made=False), Policy(max_retries=0, delay_s=2.0), NOW, 0.0)
    assert (done.state, done.attempts, done.next_attempt) == (State.PENDING, 1, NOW)


def test_attempts_that_were_not_made_are_no_retries() -> None:
    """However often the store was slow before: the receiver has all its tries, and the pauses between
    them grow from the first."""
    delivery = deliveries_of(EVENT, SPEC, NOW)[0]
    for _ in range(10):
        delivery = after(delivery, AGAIN._replace(made=False), POLICY, NOW, 0.0)
    for attempt in range(1, 4):
        delivery = after(delivery, AGAIN, POLICY, NOW, 0.0)
        assert delivery.next_attempt == NOW + timedelta(seconds=2.0 * 3 ** (attempt - 1))
    delivery = after(delivery, AGAIN, POLICY, NOW, 0.0)
    assert (delivery.state, delivery.attempts) == (State.GAVE_UP, 14)
    assert delivery.last_answer == "HTTP 500; gave up after 4 attempts"


def test_addresses_of_two_tenants_are_not_mixed() -> None:
    """What a job's spec lacks comes from its images, with their tenant; not from another tenant's."""
    images = Addresses(webhook_url="http://a.example", email="a@b.example", tenant="beta")
    assert Addresses().filled(images) == images
    assert Addresses(email="x@y.example").filled(images).tenant == "beta"
    acme = Addresses(email="x@y.example", tenant="acme")
    assert acme.filled(images) == acme
    assert acme.filled(Addresses(webhook_url="http://a.example")).tenant == "acme"


def test_a_replay_is_the_same_tenants() -> None:
    """Also of a record from before they named one, when it is known whose job it is."""
    of_acme = SPEC.model_copy(update={"tenant": "acme"})
    (notice, _), (old, _) = deliveries_of(EVENT, of_acme, NOW), deliveries_of(EVENT, SPEC, NOW)
    assert notice.again("r", NOW, "beta").tenant == "acme"
    assert (old.tenant, old.again("r", NOW, "acme").tenant) == (None, "acme")
    assert notice.id == old.id


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, State.DELIVERED), (204, State.DELIVERED), (299, State.DELIVERED),
        (301, State.PENDING), (307, State.PENDING), (400, State.PENDING), (404, State.PENDING),
        (429, State.PENDING), (500, State.PENDING), (503, State.PENDING), (410, State.GAVE_UP),
    ],
)  # fmt: skip
def test_only_2xx_is_done_and_only_410_ends_it(status: int, state: State) -> None:
    assert classify(status, None, NOW).state is state


def test_retry_after_is_read_in_both_forms() -> None:
    """Seconds or a date; nonsense and the past ask for nothing, nobody may ask for a century."""
    assert asked_wait("120", NOW) == 120
    assert asked_wait(format_datetime(NOW + timedelta(minutes=5), usegmt=True), NOW) == 300
    assert asked_wait(format_datetime(NOW - timedelta(minutes=5), usegmt=True), NOW) == 0
    for nonsense in (None, "", "soon", "-5", "1e9", "٣"):
        assert asked_wait(nonsense, NOW) == 0
    assert asked_wait("9" * 400, NOW) == LONGEST_ASKED_S


@given(st.text())
def test_no_retry_after_header_breaks_anything(header: str) -> None:
    assert 0 <= asked_wait(header, NOW) <= LONGEST_ASKED_S


@given(
    st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.01, 1e6)
)  # fmt: skip
def test_waits_grow_and_stay_bounded(attempts: int, jitter: float, delay: float) -> None:
    """Never more than six hours; jitter takes off at most a quarter; never sooner than before."""
    policy = Policy(5, delay)
    wait = backoff(attempts, policy, jitter)
    assert 0 < wait <= LONGEST_S
    assert wait >= 0.75 * min(delay, LONGEST_S)
    assert backoff(attempts + 1, policy, 0) >= backoff(attempts, policy, 0)


def test_retries_are_counted_after_the_first_attempt() -> None:
    """With three retries there are four attempts, and then it is over."""
    delivery = deliveries_of(EVENT, SPEC, NOW)[0]
    for attempt in range(1, 4):
        delivery = after(delivery, AGAIN, POLICY, NOW, 0.0)
        assert (delivery.state, delivery.attempts) == (State.PENDING, attempt)
        assert delivery.next_attempt == NOW + timedelta(seconds=2.0 * 3 ** (attempt - 1))
    delivery = after(delivery, AGAIN, POLICY, NOW, 0.0)
    assert (delivery.state, delivery.attempts) == (State.GAVE_UP, 4)
    assert delivery.next_attempt is None
    assert "HTTP 500" in delivery.last_answer


def test_the_receiver_may_ask_for_more_patience_but_not_for_less() -> None:
    delivery = deliveries_of(EVENT, SPEC, NOW)[0]
    patient = after(delivery, AGAIN._replace(wait_s=100.0), POLICY, NOW, 0.0)
    hasty = after(delivery, AGAIN._replace(wait_s=0.1), POLICY, NOW, 0.0)
    assert patient.next_attempt == NOW + timedelta(seconds=100)
    assert hasty.next_attempt == NOW + timedelta(seconds=2)


def test_a_final_answer_ends_it_at_once() -> None:
    delivery = deliveries_of(EVENT, SPEC, NOW)[0]
    for state in (State.DELIVERED, State.GAVE_UP):
        done = after(delivery, Answer(state, "x"), POLICY, NOW, 0.5)
        assert done.final
        assert done.next_attempt is None
        assert done.attempts == 1


def test_what_is_given_up_at_once_is_counted_apart() -> None:
    """No try would change it, and nobody need be paged. After all tries, it is given up; before that,
    it is pending."""
    delivery = deliveries_of(EVENT, SPEC, NOW)[0]
    tried = delivery.model_copy(update={"attempts": POLICY.max_retries})
    came_to = []
    for before, answer in (
        (delivery, classify(410, None, NOW)), (delivery, AGAIN), (tried, AGAIN),
        (tried, classify(410, None, NOW)), (tried, classify(204, None, NOW)),
    ):  # fmt: skip
        counts = counted()
        attempted(before.kind, answer.state, after(before, answer, POLICY, NOW, 0.0).state)
        came_to += [state for state, number in counted().items() if number > counts[state]]
    assert came_to == ["refused", "pending", "gave-up", "refused", "delivered"]


def counted() -> dict[str, float]:
    """Attempts at webhooks, by what they came to."""
    return {
        sample.labels["state"]: sample.value
        for metric in REGISTRY.collect() for sample in metric.samples
        if sample.name == "frond_delivery_attempts_total" and sample.labels["kind"] == Kind.WEBHOOK
    }  # fmt: skip
