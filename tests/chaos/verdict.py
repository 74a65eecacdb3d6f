"""What counts as lost, doubled or different: plain values in, counts out."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chaos import outside
from chaos.figures import Figures
from chaos.jobs import EXPECTED, FUZZ, Bad, JobPlan
from chaos.outside import Copy
from chaos.receiver import HOOK, Delivery, Mode
from chaos.workers import service_of
from frond.contracts.jobs import JobOutcome, JobStatus

_SLACK_S: Final = 1.0
_LATER_S: Final = 0.5
_RECOVERY_S: Final = 10.0
"""So long after a fault is over may what it held up still be late."""

CHECKS: Final = (
    "every image of every acknowledged job is in its job's summary once, with a reason if it was"
    " spoilt, and in coco.json if it was not",
    "all copies of a job's completed event have one ce_id, the same bytes and headers, and are"
    " equal to the stored one, headers too; images = completed + failed",
    "webhook deliveries of a job have one webhook-id, one body and a good signature; at least one"
    " was taken, and each that follows one that was taken has a cause between the two: a notifier or"
    " the store that was killed, frozen, removed, cut off or full; a replay is posted once, after it"
    " was asked for; no webhook is posted for a job that nobody submitted, nor to another path, nor"
    " to an address that said 410, until a replay is asked for",
    "every object is byte for byte that of a calm run of the same jobs, and there is no other",
    "jobs that no run can repeat byte for byte (forms, parts, cancellations, retries, replays,"
    " deletions) are in the journal with all that may become of them, and are held against that:"
    " outcome, images by name, webhooks, and whatever they or requests that died left anywhere",
    "no open ledger, no open delivery, no unfinished multipart upload, no helper process of a worker"
    " that has died",
    "no process of a service was ended by a signal that nobody sent; those that ended with an exit"
    " status, as they do when the broker stays away, are counted",
    "every consumer group has committed all topics to their ends; the read model tells of each job"
    " what its completed event tells",
    "each message sent that is no event has its dead letter: value, key, headers, group, reason, id;"
    " there is no other dead letter",
    "no job was driven again by the reconciler (it waits an hour), but those of which a scenario"
    " itself took events away",
)


def ends_as(outcome: JobOutcome, counts: Mapping[str, int]) -> JobStatus:
    """The one status that a job with this outcome and these counts of images has."""
    if outcome is JobOutcome.DISMISSED:
        return JobStatus.DISMISSED
    nothing_came_of_it = counts["failed"] and not counts["completed"]
    return JobStatus.FAILED if nothing_came_of_it else JobStatus.SUCCESSFUL


def fell(figures: Figures, name: str, code: int | None, *, ours: bool) -> None:
    """A process has ended, and nothing that we sent has ended it.

    Args:
        ours: whether it is a service's; what the servers die of is theirs.
    """
    if code is None or code >= 0:
        figures.exits[f"{service_of(name)} (status {code})"] += 1
        return
    known = {s.value for s in signal.Signals}
    told = signal.Signals(-code).name if -code in known else f"signal {-code}"
    if ours:
        figures.lose(f"{name} died by itself: {told}")
    else:
        figures.exits[f"{name} ({told})"] += 1


def one_ending(figures: Figures, job_id: str, copies: list[Copy]) -> None:
    """All copies of a job's completed event are the same."""
    for what, seen in (
        ("ids", {c.ce_id for c in copies}), ("bodies", {c.value for c in copies}),
        ("headers", {c.headers for c in copies}),
    ):  # fmt: skip
        if len(seen) > 1:
            figures.double(f"job {job_id} has completed events of {len(seen)} different {what}")


def as_stored(figures: Figures, job_id: str, copy: Copy, value: str, headers: str) -> None:
    """The completed event that was sent is the one that is stored, by digests."""
    if copy.value != value:
        figures.double(f"job {job_id}: the sent completed event is not the stored one")
    if copy.headers != headers:
        figures.double(f"job {job_id}: the sent completed event's headers are not the stored ones")


def images(
    figures: Figures, plan: JobPlan, event: dict[str, Any], summary: dict[str, Any],
    coco: dict[str, Any],
) -> None:  # fmt: skip
    """Every image of a job is accounted for, once."""
    job_id = plan.job_id
    wanted = {plan.image_id(p): p for p in plan.images}
    good = sum(p.bad is Bad.NO for p in plan.images)
    counts = {"expected": len(wanted), "completed": good, "failed": len(wanted) - good}
    if event["images"] != counts:
        figures.lose(f"job {job_id}: completed event says {event['images']}, not {counts}")
    outcome = JobOutcome.COMPLETED if good == len(wanted) else JobOutcome.COMPLETED_WITH_ERRORS
    due, ended = (ends_as(outcome, counts), outcome), (event["status"], event["outcome"])
    if ended != due:
        figures.lose(f"job {job_id} ended {', '.join(ended)}, not {', '.join(due)}")
    listed = Counter(i["image_id"] for i in summary["images"])
    told = {i["image_id"]: i for i in summary["images"]}
    drawn = Counter(i["file_name"] for i in coco["images"])
    for image_id, times in listed.items():
        if times > 1 or image_id not in wanted:
            figures.double(f"job {job_id}: image {image_id} is in the summary {times} times")
    for image_id, picture in wanted.items():
        found = told.get(image_id)
        if found is None:
            figures.lose(f"job {job_id}: image {picture.name} is not in the summary")
        elif picture.bad is Bad.NO:
            squares = sum(found["detections"].values())
            if found["status"] != "completed":
                figures.lose(f"job {job_id}: {picture.name} failed: {found['reason']}")
            elif squares != picture.count:
                figures.lose(f"job {job_id}: {picture.name} has {squares} of {picture.count}")
            if (times := drawn[picture.name]) != 1:
                (figures.double if times else figures.lose)(
                    f"job {job_id}: {picture.name} is {times} times in coco.json"
                )
        elif found["status"] != "failed" or found["reason"] not in EXPECTED[picture.bad]:
            figures.lose(
                f"job {job_id}: {picture.name} should have failed, is {found['status']} "
                f"({found['reason']})"
            )


def told_otherwise(job: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    """What is wrong with what GET /jobs/{id} says; empty when nothing is."""
    counts = ("expected", "completed", "failed")
    mine = {k: job["images"][k] for k in counts}
    # a job that was cancelled before it was sealed expects nothing, and its event does not say so
    if job["status"] != event["status"] or mine != {k: event["images"].get(k) for k in counts}:
        return f"{job['status']} {mine}, not {event['status']} {event['images']}"
    return ""


def driven(figures: Figures, jobs: Mapping[str, int], robbed: Collection[str]) -> None:
    """What the reconciler drove again, at least once and idempotence alone have not brought to its
    end; only jobs of which a scenario took something away may need it."""
    for job_id, times in sorted(jobs.items()):
        if job_id.startswith(FUZZ):
            continue  # made up by rubbish: nobody promised its images
        figures.driven += times
        if job_id not in robbed:
            figures.lose(f"job {job_id} stood still and was driven again {times} times")


@dataclass(frozen=True)
class Span:
    """When something was wrong that lets a webhook be made twice; seconds of the epoch."""

    begin: float
    end: float


def causes(noted: Iterable[Mapping[str, Any]]) -> list[Span]:
    """The spans in which a notifier, or the store in which it notes what it has sent, was disturbed."""
    found: list[Span] = []
    since: dict[tuple[str, str], float] = {}
    for entry in noted:
        at, what = entry["at"], entry["what"]
        name = str(entry.get("name") or entry.get("point") or "")
        who = name.partition(".")[0] if "point" in entry else service_of(name)
        if what == "kill" and who == "notifier":
            # it is noted first, and done then
            found.append(Span(at - _SLACK_S, at + _LATER_S))
        elif what in ("remove", "exited") and who == "notifier":
            found.append(Span(at, at + _RECOVERY_S))
        elif what == "kill" and who == "minio":
            since.setdefault(("down", name), at)
        elif what == "signal" and who in ("notifier", "minio") and entry["signal"] == "SIGSTOP":
            since.setdefault(("frozen", name), at)
        elif what == "fault" and "s3" in entry.get("places", ()):
            since.setdefault(("fault", entry["fault"]), at)
        else:
            over = {"server is back": ("down", name), "fault over": ("fault", entry.get("fault"))}
            if what == "signal" and entry["signal"] == "SIGCONT":
                over["signal"] = ("frozen", name)
            begun = since.pop(over.get(what, ("", "")), None)  # type: ignore[arg-type]
            if begun is not None:
                found.append(Span(begun, at + _RECOVERY_S))
    return found + [Span(begun, float("inf")) for begun in since.values()]


def notices(
    figures: Figures, job_id: str, got: list[Delivery], *, asked: bool, least: int,
    replays: Sequence[float] = (), spans: Collection[Span] = (),
) -> None:  # fmt: skip
    """A job's webhook: at least once, the same each time, and no more often than has a cause.

    Args:
        got: every request of this job that reached the receiver, oldest first.
        least: how many have to have been taken.
        replays: when each further round was asked for: it makes one more, and not before.
        spans: when something was wrong.
    """
    if not asked:
        if got:
            figures.double(f"job {job_id}: {len(got)} webhooks of a job that asked for none")
        return
    figures.asked += 1
    taken = [d for d in got if d.answered == "ok"]
    figures.webhooks += len(taken)
    figures.told += bool(taken)
    if len(taken) < least:
        figures.lose(
            f"job {job_id}: {len(taken) or 'no'} webhook was delivered, of {least} at least"
        )
    for i, at in enumerate(replays):
        due = len(replays) - i
        if (came := sum(d.at >= at for d in taken)) < due:
            figures.lose(f"job {job_id}: {came} webhooks came after replays that make {due}")
            break
    if len({d.webhook_id for d in got}) > 1 or len({d.body for d in got}) > 1:
        figures.double(f"job {job_id}: webhooks of different ids or bodies")
    for bad in (d for d in got if not d.signed):
        figures.lose(f"job {job_id}: a webhook's signature does not fit ({bad.webhook_id})")
    # of an answer that nobody read, its sender knows nothing: it has to come again
    read = [d for d in taken if d.read]
    asked_for = sorted(replays)
    for one, other in itertools.pairwise(read):
        if _has_cause(one, other, spans):
            continue
        if asked_for and asked_for[0] <= other.at:
            asked_for.pop(0)
            continue
        figures.double(
            f"job {job_id}: its webhook was taken, and came again {other.at - one.at:.1f} s later, "
            "though nothing went wrong between"
        )


def _has_cause(one: Delivery, other: Delivery, spans: Collection[Span]) -> bool:
    return any(s.begin <= other.at and s.end >= one.at for s in spans)


def strays(figures: Figures, got: Iterable[Delivery], known: Collection[str]) -> None:
    """What reached the receiver and is no webhook of a job that a scenario has submitted; nor is
    that of an earlier one's, of which nothing was open any more when it was judged."""
    for d in got:
        if d.path != HOOK:
            figures.double(f"something was sent to {d.path} of the receiver, for job {d.job_id!r}")
        elif d.job_id not in known:
            figures.double(f"a webhook came for job {d.job_id!r}, which nobody submitted now")


def gone(
    figures: Figures, job_id: str, got: Sequence[Delivery], *, replayed: float = float("inf"),
    spans: Collection[Span] = (),
) -> None:  # fmt: skip
    """An address of its own that said 410 of this job: nothing more is posted there.

    Args:
        replayed: when a replay was asked for, which is posted.
        spans: when something was wrong that lets 410 be forgotten: between hearing and noting it.
    """
    said = [d for d in got if d.answered == Mode.GONE.value]
    if not said:
        figures.lose(f"job {job_id}: no webhook was sent to the receiver that says 410")
    for d in got:
        if d.job_id != job_id or d.path != HOOK:
            figures.double(f"job {d.job_id!r}: posted to an address that had said 410 of {job_id}")
    for one, other in itertools.pairwise(d for d in got if d.at < replayed):
        if one.answered == Mode.GONE.value and one.read and not _has_cause(one, other, spans):
            figures.double(
                f"job {job_id}: posted again {other.at - one.at:.1f} s after its receiver said 410"
            )


def compare(
    figures: Figures, plans: Mapping[str, JobPlan], stormy: Mapping[str, bytes],
    calm: Mapping[str, bytes],
) -> None:  # fmt: skip
    """Hold a scenario's objects against those of the calm run of the same jobs."""

    def mine(key: str) -> bool:
        job_id = outside.job_of(key)
        return job_id is None or job_id in plans

    for key in sorted(stormy):
        if key not in calm:
            figures.lose(f"orphan: {key}, which a calm run does not have")
        elif stormy[key] != calm[key]:
            figures.differ(f"{key} has other bytes than in a calm run")
    for key in sorted(k for k in calm.keys() - stormy.keys() if mine(k)):
        figures.lose(f"missing: {key}, which a calm run has")
