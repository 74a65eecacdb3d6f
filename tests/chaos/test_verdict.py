"""The verdict can go against the system: what is missing, twice, or other is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chaos import jobs, outside, verify
from chaos.figures import Figures
from chaos.jobs import Bad, JobPlan
from chaos.outside import Copy
from chaos.receiver import Delivery

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
    return {"images": counts}, {"images": images}, {"images": [{"file_name": p.name} for p in good]}


def test_a_good_job_counts_nothing() -> None:
    figures = Figures()
    verify._images(figures, PLAN, *told(PLAN))
    assert figures.good, figures.details


@pytest.mark.parametrize("part", ["summary", "coco", "event", "reason", "detections"])
def test_whatever_is_missing_is_lost(part: str) -> None:
    """An image that is gone from any of the documents, a failure without its reason, a detection."""
    figures = Figures()
    event, summary, coco = told(PLAN)
    if part == "summary":
        summary["images"].pop()
    elif part == "coco":
        coco["images"].pop()
    elif part == "event":
        event["images"]["completed"] -= 1
    elif part == "reason":
        summary["images"][-1]["reason"] = "internal"
    else:
        summary["images"][0]["detections"]["blob"] -= 1
    verify._images(figures, PLAN, event, summary, coco)
    assert (figures.lost, figures.doubled) == (1, 0), figures.details


@pytest.mark.parametrize("part", [1, 2])
def test_what_is_there_twice_is_doubled(part: int) -> None:
    figures = Figures()
    documents = told(PLAN)
    documents[part]["images"].append(documents[part]["images"][0])
    verify._images(figures, PLAN, *documents)
    assert figures.doubled == 1


def test_objects_are_held_against_the_calm_run() -> None:
    """Missing and orphaned ones are lost, other bytes are different; other jobs are left alone."""
    job = PLAN.job_id
    calm = {f"jobs/{job}/a": b"1", f"jobs/{job}/b": b"2", "jobs/another/a": b"3"}
    stormy = {f"jobs/{job}/a": b"x", f"jobs/{job}/c": b"2"}
    figures = Figures()
    verify.compare(figures, {job: PLAN}, stormy, calm)
    assert (figures.lost, figures.different) == (2, 1), figures.details


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


def notice(**more: Any) -> Delivery:
    given = {"webhook_id": "w1", "signed": True, "body": "b1", "answered": "ok", **more}
    return Delivery(job_id="j", at=0.0, path="/hook", **given)


@pytest.mark.parametrize(
    ("got", "asked", "lost", "doubled"),
    [
        ([notice(), notice()], True, 0, 0),
        ([], True, 1, 0),
        ([notice(answered="500")], True, 1, 0),
        ([notice(), notice(webhook_id="w2")], True, 0, 1),
        ([notice(), notice(body="b2")], True, 0, 1),
        ([notice(), notice(signed=False)], True, 1, 0),
        ([notice()], False, 0, 1),
        ([], False, 0, 0),
    ],
)
def test_webhooks(got: list[Delivery], asked: bool, lost: int, doubled: int) -> None:
    """One id and one body, however often; signed; taken once at least; none that nobody wanted."""
    figures = Figures()
    verify._notices(figures, "j", got, asked=asked, must=True)
    assert (figures.lost, figures.doubled) == (lost, doubled), figures.details


@pytest.mark.parametrize("other", ["ce_id", "value", "headers"])
def test_a_job_ends_once(other: str) -> None:
    """The same event may come twice; one that differs in anything is a second ending."""
    one = Copy(ce_id="1", value="v", headers="h", event=None)
    figures = Figures()
    verify._one_ending(figures, "j", [one, one])
    assert figures.good
    verify._one_ending(figures, "j", [one, replace(one, **{other: "x"})])
    assert figures.doubled == 1
