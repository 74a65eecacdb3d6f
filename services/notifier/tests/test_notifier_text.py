"""What receivers get to read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from aiosmtplib.email import extract_recipients, parse_address
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts.deliveries import Delivery
from frond.contracts.errors import JobRejected
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import (
    Artifact,
    ImageCounts,
    ImageFailure,
    JobOutcome,
    JobSpec,
    JobStatus,
    ModelRef,
    Timings,
    WindowCounts,
)
from frond.contracts.reasons import Reason
from frond.notifier.delivery import deliveries_of
from frond.notifier.text import mail, mail_text, webhook_body
from frond.runtime import Egress

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODEL = ModelRef(name="palm-detector", digest="ab" * 32, version="1.2")
FAILURE = ImageFailure(
    name="größe.tif", image="s3://frond/größe.tif", reason=Reason.TRUNCATED,
    detail="Pixels are missing at the end of the file. Copy it again.",
)  # fmt: skip
EVENT = JobCompleted(
    job_id="survey-7", status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED_WITH_ERRORS,
    images=ImageCounts(expected=3, completed=2, failed=1),
    windows=WindowCounts(total=9, done=7, skipped=2), detections={"palm": 41, "car": 2},
    failures=(FAILURE,),
    artifacts=(
        Artifact(name="coco.json", uri="s3://frond/x", media_type="application/json", size=5,
                 sha256="cd" * 32),
    ),
    model=MODEL, started=NOW - timedelta(seconds=75), finished=NOW,
)  # fmt: skip
URL = "https://frond.example/"
# what means something in a header, and any other character
PART = st.text(
    st.sampled_from("abz09.!#$%&'*+-/=?^_`{|}~()<>[]:;,\\\" \t@é＠（。") | st.characters(),
    max_size=12,
)


def delivery(email: str = "a@b.example") -> Delivery:
    spec = JobSpec(job_id="survey-7", model=MODEL, email=email)
    return deliveries_of(EVENT, spec, NOW)[0]


def test_the_webhook_body_tells_all_of_the_event() -> None:
    """type, timestamp, data: the event as it is on the topic, and links to each artifact."""
    body = json.loads(webhook_body(delivery(), URL))
    assert body["type"] == "job.completed"
    assert body["timestamp"] == "2026-01-02T03:04:05Z"
    links = body["data"].pop("links")
    assert JobCompleted.model_validate(body["data"]) == EVENT
    assert links["results"] == {
        "coco.json": "https://frond.example/jobs/survey-7/results/coco.json"
    }
    assert links["status"] == "https://frond.example/status/survey-7"


def test_what_nobody_measured_is_no_time_of_zero() -> None:
    """An event without times tells none: its stages did not take 0 seconds. What was measured is told."""
    assert "timings" not in json.loads(webhook_body(delivery(), URL))["data"]
    timed = EVENT.model_copy(update={"timings": Timings(run=1.5)})
    data = json.loads(webhook_body(delivery().model_copy(update={"event": timed}), URL))["data"]
    assert data["timings"] == Timings(run=1.5).model_dump()


def test_the_body_is_the_same_at_each_attempt() -> None:
    assert webhook_body(delivery(), URL) == webhook_body(delivery(), URL)


@pytest.mark.parametrize("promised", ["", "https://frond.example"])
def test_links_stay_when_the_setting_changes(promised: str) -> None:
    """What was promised under one ``webhook-id`` has one body, at each attempt and replay, though its
    notifier was started again with another address. Records of before say none: the setting is used."""
    spec = JobSpec(job_id="survey-7", model=MODEL, webhook_url="http://a.example/hook")
    first = deliveries_of(EVENT, spec, NOW, promised)[0]
    read = Delivery.model_validate_json(first.model_dump_json())
    body = webhook_body(first, promised)
    for later in (read, read.again("one", NOW), read.again("one", NOW).again("two", NOW)):
        assert webhook_body(later, "https://moved.example") == body
    mailed = mail(first, "frond@x.example", "https://moved.example", NOW)
    assert f"{promised}/status/survey-7" in mailed.get_content()
    assert "moved" not in mailed.get_content()
    before = read.model_copy(update={"public_url": None})
    assert b"https://moved.example/status/survey-7" in webhook_body(before, "https://moved.example")


def test_the_mail_is_readable() -> None:
    """Job, counts, failures with their sentence and code, links."""
    text = mail_text(EVENT, URL)
    assert text.startswith("Job survey-7 has completed; 1 image failed.")
    assert "2 completed, 1 failed, of 3" in text
    assert "7 run, 2 skipped" in text
    assert "2 car, 41 palm" in text
    assert "- größe.tif: Pixels are missing at the end of the file. Copy it again. [truncated]" in (
        text
    )
    assert "1 min 15 s" in text
    assert "https://frond.example/jobs/survey-7/results/coco.json" in text


def test_a_name_forges_no_line() -> None:
    """A newline in a file's name, an escape in a class: shown, not obeyed. JSON keeps them."""
    evil = FAILURE.model_copy(update={"name": "a\n- b.tif: fine [ok]\x1b[31m\u202e"})
    event = EVENT.model_copy(update={"failures": (evil,), "detections": {"palm\r\nResults:": 1}})
    text = mail_text(event, URL)
    assert "- a\\x0a- b.tif: fine [ok]\\x1b[31m\\u202e: Pixels" in text
    assert len(text.splitlines()) == len(mail_text(EVENT, URL).splitlines())
    body = json.loads(webhook_body(delivery().model_copy(update={"event": event}), URL))
    assert body["data"]["failures"][0]["name"] == evil.name


def test_many_failures_are_cut_and_counted() -> None:
    many = EVENT.model_copy(
        update={
            "failures": (FAILURE,) * 100,
            "images": ImageCounts(expected=502, completed=2, failed=500),
        }
    )
    text = mail_text(many, URL)
    assert text.count("größe.tif") == 20
    assert "and 480 more" in text


def test_the_mail_keeps_its_id() -> None:
    """A repeat has the Message-ID of the first, so that a mailbox can show it once."""
    first = mail(delivery(), "frond@x.example", URL, NOW)
    again = mail(delivery(), "frond@x.example", URL, NOW + timedelta(hours=1))
    assert first["Message-ID"] == again["Message-ID"]
    assert first["To"] == "a@b.example"
    assert first["Subject"] == "Frond: job survey-7 has completed; 1 image failed"


def test_an_address_cannot_add_headers() -> None:
    with pytest.raises(ValueError, match=r"linefeed|header|invalid"):
        mail(delivery("a@b.example\nBcc: c@d.example"), "frond@x.example", URL, NOW)


@settings(max_examples=500)
@given(PART, PART)
def test_whoever_reads_the_header_finds_the_address_that_was_looked_at(
    name: str, host: str
) -> None:
    """Not what a comment, a group or an encoded word would make of it; another header's name neither."""
    address = f"{name}@{host}.example"
    try:
        Egress().check_mail(address)
    except JobRejected:
        return
    made = mail(delivery(address), "frond@x.example", URL, NOW)
    assert extract_recipients(made) == [address] == [parse_address(address)]
    assert made.keys().count("To") == 1
