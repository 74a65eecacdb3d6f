"""What is sent: a webhook's JSON body, and an e-mail that a person reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote

from frond.contracts.deliveries import Delivery
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import JobOutcome
from frond.contracts.visible import visible

_SHOWN: int = 20


def links(event: JobCompleted, public_url: str) -> dict[str, Any]:
    """Where the REST service shows this job and its files; paths alone without ``public_url``."""
    base, job = public_url.rstrip("/"), quote(event.job_id)
    return {
        "status": f"{base}/status/{job}",
        "results": {a.name: f"{base}/jobs/{job}/results/{quote(a.name)}" for a in event.artifacts},
    }


def webhook_body(delivery: Delivery, public_url: str) -> bytes:
    """The body, as Standard Webhooks lays it out; the same bytes at each attempt.

    Args:
        public_url: base of the links where the record says none.
    """
    event = delivery.event
    data = event.model_dump(mode="json", exclude_none=True)
    if delivery.tenant is not None:
        data["tenant"] = delivery.tenant
    data["links"] = links(event, _base(delivery, public_url))
    body: dict[str, Any] = {"type": "job.completed"}
    if event.finished is not None:
        body["timestamp"] = event.finished.isoformat().replace("+00:00", "Z")
    body["data"] = data
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def mail(delivery: Delivery, sender: str, public_url: str, now: datetime) -> EmailMessage:
    """The e-mail. Its Message-ID stays the same, so that a mailbox shows a repeat once.

    Args:
        public_url: base of the links where the record says none.

    Raises:
        ValueError: the address cannot stand in a header.
    """
    event = delivery.event
    message = EmailMessage()
    message["From"] = sender
    # one address, whatever a reader of lists, groups and comments would make of it
    local, _, domain = delivery.target.rpartition("@")
    message["To"] = Address(username=local, domain=domain)
    message["Subject"] = f"Frond: {_headline(event)}"
    message["Date"] = now.astimezone(UTC)
    message["Message-ID"] = f"<{delivery.id}@frond.invalid>"
    # so that out-of-office replies stay away
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail_text(event, _base(delivery, public_url)))
    return message


def mail_text(event: JobCompleted, public_url: str) -> str:
    """Plain text: the job, its counts, what failed and why, where the results are."""
    images = event.images
    expected = images.expected if images.expected is not None else "an unknown number"
    lines = [f"{_headline(event)[0].upper()}{_headline(event)[1:]}.", ""]
    lines.append(f"Images:     {images.completed} completed, {images.failed} failed, of {expected}")
    w = event.windows
    lines.append(f"Windows:    {w.done} run, {w.skipped} skipped (no data), {w.failed} failed")
    found = ", ".join(f"{n} {c}" for c, n in sorted(event.detections.items())) or "none"
    lines.append(f"Detections: {found}")
    if event.model is not None:
        version = f" {event.model.version}" if event.model.version else ""
        lines.append(f"Model:      {event.model.name}{version} ({event.model.digest[:12]})")
    if event.started and event.finished:
        lines.append(f"Took:       {_duration((event.finished - event.started).total_seconds())}")
    if event.failures:
        lines += ["", "These images failed:"]
        lines += [f"- {f.name}: {f.detail} [{f.reason.value}]" for f in event.failures[:_SHOWN]]
        more = images.failed - min(len(event.failures), _SHOWN)
        if more > 0:
            lines.append(f"- and {more} more; all of them are in summary.json")
    where = links(event, public_url)
    lines += ["", f"Status:  {where['status']}"]
    if where["results"]:
        lines += ["Results:", *(f"  {url}" for url in where["results"].values())]
    # a file's name or a class may have a newline in it, which forges no line here
    return "\n".join(map(visible, lines)) + "\n"


def _base(delivery: Delivery, public_url: str) -> str:
    return public_url if delivery.public_url is None else delivery.public_url


def _headline(event: JobCompleted) -> str:
    count = event.images.failed
    ended = {
        JobOutcome.COMPLETED: "has completed",
        JobOutcome.COMPLETED_WITH_ERRORS: (
            f"has completed; {count} image{'s' if count != 1 else ''} failed"
        ),
        JobOutcome.DISMISSED: "was cancelled",
    }[event.outcome]
    return f"job {event.job_id} {ended}"


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
