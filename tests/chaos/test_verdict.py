"""The verdict can go against the system: what is missing, twice, or other is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from chaos import jobs, outside, verdict
from chaos.figures import Figures
from chaos.jobs import Bad, JobPlan
from chaos.outside import Copy
from chaos.receiver import Delivery
from chaos.verdict import Span
from frond.contracts.jobs import JobOutcome

PLAN = jobs.plan(1, 5, images=3, bad=1)


def told(plan: JobPlan) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Completed event, summary and coco.json of a job that went well."""
    bad = [p for p in plan.images if p.bad is not Bad.NO]
    good = [p for p in plan.images if p.bad is Bad.NO]
    images = [
        {"image_id": plan.image_id(p), "status": "completed", "reason": None,
         "detections": {"blob": p.count}} for p in good
    ] + [
        {"image_id": plan.image_id(p), "status": "failed", "detections": {},
         "reason": sorted(jobs.EXPECTED[p.bad])[0]} for p in bad
    ]  # fmt: skip
    counts = {"expected": len(plan.images), "completed": len(good), "failed": len(bad)}
    event = {"status": "successful", "outcome": "completed_with_errors", "images": counts}
    return event, {"images": images}, {"images": [{"file_name": p.name} for p in good]}


def test_a_good_job_counts_nothing() -> None:
    figures = Figures()
    verdict.images(figures, PLAN, *told(PLAN))
    assert figures.good, figures.details


@pytest.mark.parametrize(
    "part", ["summary", "coco", "event", "reason", "detections", "status", "outcome"]
)
def test_whatever_is_missing_is_lost(part: str) -> None:
    """An image that is gone from any of the documents, a failure without its reason, a detection, an
    end that is not this job's."""
    figures = Figures()
    event, summary, coco = told(PLAN)
    if part == "summary":
        summary["images"].pop()
    elif part == "coco":
        coco["images"].pop()
    elif part == "event":
        event["images"]["completed"] -= 1
    elif part == "status":
        event["status"] = "failed"
    elif part == "outcome":
        event["outcome"] = "completed"
    elif part == "reason":
        summary["images"][-1]["reason"] = "internal"
    else:
        summary["images"][0]["detections"]["blob"] -= 1
    verdict.images(figures, PLAN, event, summary, coco)
    assert (figures.lost, figures.doubled) == (1, 0), figures.details


@pytest.mark.parametrize("part", [1, 2])
def test_what_is_there_twice_is_doubled(part: int) -> None:
    figures = Figures()
    documents = told(PLAN)
    documents[part]["images"].append(documents[part]["images"][0])
    verdict.images(figures, PLAN, *documents)
    assert figures.doubled == 1


def test_objects_are_held_against_the_calm_run() -> None:
    """Missing and orphaned ones are lost, other bytes are different; other jobs are left alone."""
    job = PLAN.job_id
    calm = {f"jobs/{job}/a": b"1", f"jobs/{job}/b": b"2", "jobs/another/a": b"3"}
    stormy = {f"jobs/{job}/a": b"x", f"jobs/{job}/c": b"2"}
    figures = Figures()
    verdict.compare(figures, {job: PLAN}, stormy, calm)
    assert (figures.lost, figures.different) == (2, 1), figures.details
    assert any(d.startswith(f"lost: orphan: jobs/{job}/c") for d in figures.details)


def test_only_moments_are_left_out_of_a_digest() -> None:
    """Two job.json that differ in ``created`` are the same; in anything else they are not."""
    key = "jobs/j/job.json"
    one, same, other = b'{"created":1,"a":2}', b'{"a":2,"created":9}', b'{"created":1,"a":3}'
    assert outside.digest(key, one) == outside.digest(key, same) != outside.digest(key, other)
    assert outside.digest("jobs/j/x", one) != outside.digest("jobs/j/x", same)


def test_a_plan_is_a_function_of_seed_and_number() -> None:
    assert jobs.plan(3, 9) == jobs.plan(3, 9) != jobs.plan(4, 9)
    assert jobs.plan(3, 9).images[0].data() == jobs.plan(3, 9).images[0].data()


def test_the_last_line() -> None:
    """As promised: three zeros when all is well, and figures add up."""
    figures = Figures(jobs=2, kills=1) + Figures(jobs=1)
    expected = "jobs=3 kills=1 crash_points=0 faults=0 lost=0 doubled=0 different=0"
    assert figures.line() == expected
    figures.lose("an image")
    assert not figures.good


@pytest.mark.parametrize("other", [{"ce_id": "x"}, {"value": "x"}, {"headers": "x"}])
def test_a_job_ends_once(other: dict[str, Any]) -> None:
    """The same event may come twice; one that differs in anything is a second ending."""
    one = Copy(ce_id="1", value="v", headers="h", event=None)
    figures = Figures()
    verdict.one_ending(figures, "j", [one, one])
    assert figures.good
    verdict.one_ending(figures, "j", [one, replace(one, **other)])
    assert figures.doubled == 1


def test_what_was_sent_is_what_is_stored() -> None:
    """Value and headers, in whatever order the headers came."""
    stored = outside.stored_headers(b'[["ce_id", "1"], ["traceparent", "t"]]')
    sent = outside.headers_digest([("traceparent", b"t"), ("ce_id", b"1")])
    one = Copy(ce_id="1", value="v", headers=sent, event=None)
    figures = Figures()
    verdict.as_stored(figures, "j", one, "v", stored)
    assert figures.good, figures.details
    verdict.as_stored(figures, "j", one, "another", stored)
    assert figures.doubled == 1
    other = outside.stored_headers(b'[["ce_id", "1"], ["traceparent", "u"]]')
    verdict.as_stored(figures, "j", one, "v", other)
    assert figures.doubled == 2


@pytest.mark.parametrize(
    ("status", "failed", "good"),
    [("successful", 0, True), ("running", 0, False), ("successful", 1, False)],
)
def test_the_read_model_tells_what_the_event_tells(status: str, failed: int, good: bool) -> None:
    counts = {"expected": 2, "completed": 2, "failed": 0}
    event = {"status": "successful", "images": counts}
    job = {"status": status, "images": {**counts, "failed": failed, "running": 0}}
    assert (verdict.told_otherwise(job, event) == "") is good


def test_a_job_that_was_cancelled_before_it_was_sealed_expects_nothing() -> None:
    event = {"status": "dismissed", "images": {"completed": 0, "failed": 0}}
    job = {"status": "dismissed", "images": {"expected": None, "completed": 0, "failed": 0}}
    assert verdict.told_otherwise(job, event) == ""
    job["images"] = {"expected": 1, "completed": 0, "failed": 0}
    assert verdict.told_otherwise(job, event)


@pytest.mark.parametrize(
    ("outcome", "completed", "failed", "status"),
    [
        ("completed", 2, 0, "successful"), ("completed_with_errors", 1, 1, "successful"),
        ("completed_with_errors", 0, 2, "failed"), ("dismissed", 1, 1, "dismissed"),
        ("dismissed", 0, 0, "dismissed"),
    ],
)  # fmt: skip
def test_each_end_has_one_status(outcome: str, completed: int, failed: int, status: str) -> None:
    counts = {"expected": completed + failed, "completed": completed, "failed": failed}
    assert verdict.ends_as(JobOutcome(outcome), counts) == status


def test_what_was_driven_again_is_lost() -> None:
    """But for the jobs of which the scenario itself took something away."""
    figures = Figures()
    verdict.driven(figures, Counter(robbed=3), {"robbed"})
    assert figures.good
    verdict.driven(figures, Counter(robbed=1, j=2), {"robbed"})
    assert (figures.lost, figures.driven) == (1, 6), figures.details


# -- webhooks --------------------------------------------------------------------------------------


def notice(at: float = 0.0, **more: Any) -> Delivery:
    given = {"webhook_id": "w1", "signed": True, "body": "b1", "answered": "ok", **more}
    return Delivery(job_id="j", at=at, path="/hook", **given)


KILLED = verdict.causes([{"at": 5.0, "what": "kill", "name": "notifier-2"}])


@pytest.mark.parametrize(
    ("got", "asked", "lost", "doubled"),
    [
        ([notice()], True, 0, 0),
        ([], True, 1, 0),
        ([notice(answered="500")], True, 1, 0),
        ([notice(answered="500"), notice(9)], True, 0, 0),
        ([notice(4), notice(9, webhook_id="w2")], True, 0, 1),
        ([notice(4), notice(9, body="b2")], True, 0, 1),
        ([notice(4), notice(9, signed=False)], True, 1, 0),
        ([notice()], False, 0, 1),
        ([], False, 0, 0),
        # once more, after a notifier was killed: nobody knew that it had been taken
        ([notice(4), notice(9)], True, 0, 0),
        ([notice(6), notice(9)], True, 0, 1),
        ([notice(4), notice(9), notice(12)], True, 0, 1),
        ([notice(1), notice(3), notice(9)], True, 0, 1),
        ([notice(6, read=False), notice(9)], True, 0, 0),
    ],
)
def test_webhooks(got: list[Delivery], asked: bool, lost: int, doubled: int) -> None:
    """One id and one body; signed; taken once at least; again only with a cause between; none that
    nobody wanted."""
    figures = Figures()
    verdict.notices(figures, "j", got, asked=asked, least=1, spans=KILLED)
    assert (figures.lost, figures.doubled) == (lost, doubled), figures.details


@pytest.mark.parametrize(
    ("came", "replays", "lost", "doubled"),
    [
        ((10, 20, 30), (), 0, 2), ((10, 20, 30), (15,), 0, 1), ((10, 20, 30), (15, 25), 0, 0),
        ((10, 20, 30), (15, 15), 0, 0),
        # twice before anybody asked for it again, and then never
        ((10, 20), (25,), 1, 1), ((10, 20, 30), (25,), 0, 1),
        # told as sent, and never posted
        ((10,), (15,), 1, 0), ((10, 20), (15, 16), 1, 0),
    ],
)  # fmt: skip
def test_a_replay_is_one_webhook_more(
    came: tuple[float, ...], replays: tuple[float, ...], lost: int, doubled: int
) -> None:
    """One more, after it was asked for; no other, and no less."""
    figures, got = Figures(), [notice(at) for at in came]
    verdict.notices(figures, "j", got, asked=True, least=1, replays=replays, spans=KILLED)
    assert (figures.lost, figures.doubled) == (lost, doubled), figures.details


def test_as_many_were_taken_as_were_told_to_be() -> None:
    figures = Figures()
    verdict.notices(figures, "j", [notice()], asked=True, least=2)
    assert figures.lost == 1


def test_a_webhook_of_nobodys_job_is_doubled() -> None:
    """Of a job that was not submitted, of none at all, or on a path that nobody was told of."""
    figures = Figures()
    verdict.strays(figures, [notice()], {"j"})
    assert figures.good
    verdict.strays(figures, [notice()], {"another"})
    verdict.strays(figures, [replace(notice(), job_id="")], {"j"})
    verdict.strays(figures, [replace(notice(), path="/hook/again")], {"j"})
    assert figures.doubled == 3
    assert "'j'" in figures.details[0] and "/hook/again" in figures.details[2], figures.details


@pytest.mark.parametrize(
    ("got", "lost", "doubled"),
    [
        ([notice(1, answered="410")], 0, 0),
        ([notice(1, answered="410"), notice(20)], 0, 0),
        ([], 1, 0),
        ([notice(1, answered="410"), notice(3, answered="410"), notice(20)], 0, 1),
        ([notice(6, answered="410"), notice(9)], 0, 1),
        ([notice(1, answered="410"), replace(notice(20), job_id="later")], 0, 1),
        ([notice(1, answered="410"), replace(notice(20), path="/x")], 0, 1),
        # nobody has heard it: who asked was killed
        ([notice(4, answered="410"), notice(9, answered="410")], 0, 0),
        ([notice(1, answered="410", read=False), notice(3, answered="410")], 0, 0),
    ],
)
def test_an_address_that_said_410_is_left_alone(
    got: list[Delivery], lost: int, doubled: int
) -> None:
    """Until a replay is asked for, here at 15; no other job's webhook goes there at all."""
    figures = Figures()
    verdict.gone(figures, "j", got, replayed=15, spans=KILLED)
    assert (figures.lost, figures.doubled) == (lost, doubled), figures.details


# -- processes -------------------------------------------------------------------------------------


def test_who_dies_of_a_signal_that_nobody_sent_is_lost() -> None:
    """By name; an exit status is counted, as is whatever the servers die of."""
    figures = Figures()
    verdict.fell(figures, "aggregator-2", 1, ours=True)
    verdict.fell(figures, "aggregator", 1, ours=True)
    verdict.fell(figures, "minio", -11, ours=False)
    assert figures.good, figures.details
    assert figures.exits == {"aggregator (status 1)": 2, "minio (SIGSEGV)": 1}
    assert figures.ended_by_themselves() == (
        "ended by themselves: aggregator (status 1) 2×, minio (SIGSEGV) 1×"
    )
    for code in (-9, -11, -15, -40):
        verdict.fell(figures, "tiler-2", code, ours=True)
    assert figures.lost == 4
    assert "tiler-2 died by itself: SIGKILL" in figures.details[0]


@pytest.mark.parametrize(
    ("noted", "at", "is_cause"),
    [
        ([{"what": "kill", "name": "notifier"}], 0.0, True),
        ([{"what": "kill", "point": "notifier.posted"}], 0.0, True),
        ([{"what": "remove", "name": "notifier-2", "signal": "SIGTERM"}], 0.0, True),
        ([{"what": "kill", "name": "tiler"}], 0.0, False),
        ([{"what": "kill", "point": "tiler.sent"}], 0.0, False),
        # until it is over, and what it held up has come through
        ([{"what": "kill", "name": "minio"}], 500.0, True),
        ([{"what": "kill", "name": "minio"}, {"what": "server is back", "name": "minio"}], 9.0, True),
        ([{"what": "kill", "name": "minio"}, {"what": "server is back", "name": "minio"}], 99.0, False),
        ([{"what": "signal", "name": "notifier", "signal": "SIGSTOP"}], 500.0, True),
        ([{"what": "signal", "name": "notifier", "signal": "SIGCONT"}], 0.0, False),
        ([{"what": "fault", "fault": "reset", "places": ("kafka", "s3")}], 500.0, True),
        ([{"what": "fault", "fault": "reset", "places": ("kafka",)}], 0.0, False),
        ([{"what": "fault", "fault": "x", "places": ["s3"]}, {"what": "fault over", "fault": "x"}],
         99.0, False),
    ],
)  # fmt: skip
def test_what_lets_a_webhook_come_again(
    noted: list[dict[str, Any]], at: float, is_cause: bool
) -> None:
    """Trouble of a notifier, or of the store; nothing else, and no longer than it lasts."""
    spans = verdict.causes([{"at": float(i), **entry} for i, entry in enumerate(noted)])
    assert any(s.begin <= at <= s.end for s in spans) is is_cause


def test_a_cause_is_a_span() -> None:
    assert verdict.causes([]) == []
    assert [Span(4.0, 5.5)] == KILLED
