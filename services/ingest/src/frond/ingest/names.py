"""Names of images, ids of jobs: small decisions about text."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from frond.contracts.errors import JobRejected
from frond.contracts.ids import digest
from frond.contracts.reasons import Reason
from frond.ingest.problems import Refused
from frond.runtime import Egress

RASTER_SUFFIXES: Final = (
    ".tif", ".tiff", ".gtiff", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".webp", ".img", ".bmp",
)  # fmt: skip
MAX_NAME: Final = 500
_UPLOAD_ID = re.compile(r"u-([0-9a-f]{12}-)?[0-9a-f]{24}")
_RETRY_ID = re.compile(r".*-retry-[0-9]+", re.DOTALL)


def clean_text(text: str) -> str:
    """Text that every database and every JSON reader takes: no NUL, no lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def display_name(name: str) -> str:
    """A name as it was sent, short enough to store. Raises Refused when there is none."""
    clean = clean_text(name)
    if not clean.strip() or len(clean) > MAX_NAME:
        raise Refused(
            Reason.BAD_REQUEST, f"An image's name has 1 to {MAX_NAME} characters.", status=422
        )
    return clean


def is_raster(key: str) -> bool:
    """Whether an object's name has a raster's suffix."""
    return key.lower().endswith(RASTER_SUFFIXES)


def numbered(name: str, n: int) -> str:
    """``scene.tif`` with 2 is ``scene (2).tif``."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    if not stem:
        return f"{name} ({n})"
    return f"{folder}{slash}{stem} ({n}){dot}{suffix}"


def distinct(files: Sequence[tuple[str, str]]) -> list[str | None]:
    """Names for files sent together, given (name, sha256) in their order.

    The same name with the same bytes is one image: its later copies get None. The same name with
    other bytes gets a number before its suffix.
    """
    taken: set[str] = set()
    seen: set[tuple[str, str]] = set()
    originals = {name for name, _ in files}
    last: dict[str, int] = {}
    out: list[str | None] = []
    for name, sha in files:
        if (name, sha) in seen:
            out.append(None)
            continue
        seen.add((name, sha))
        n = last.get(name, 0) + 1
        chosen = name if n == 1 else numbered(name, n)
        while chosen in taken or (n > 1 and chosen in originals):
            n += 1
            chosen = numbered(name, n)
        last[name] = n
        taken.add(chosen)
        out.append(chosen)
    return out


def new_job_id(idempotency_key: str | None = None, scope: str = "") -> str:
    """An id for a job whose sender gave none; the same for the same idempotency key."""
    if idempotency_key is not None:
        return "job-" + digest("idempotency", scope, idempotency_key)[:20]
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def check_not_reserved(job_id: str) -> str:
    """Raise Refused for an id that is not its sender's to choose.

    One that names an upload: a job's images would lie among its files. One that a retry would be
    given: whoever took it could keep another's job from being run again.
    """
    if _RETRY_ID.fullmatch(job_id):
        raise Refused(
            Reason.BAD_JOB_ID, "Ids that end with -retry-N are retries'. Choose another job id."
        )
    if _UPLOAD_ID.fullmatch(job_id):
        raise Refused(Reason.BAD_JOB_ID, "Ids like this one are uploads'. Choose another job id.")
    return job_id


def check_webhook(url: str | None, egress: Egress) -> str | None:
    """A webhook address, or None for none.

    Raises:
        Refused: nothing could be sent there, or nothing may be. What a name resolves to is looked
            at when something is sent.
    """
    if not url:
        return None
    if len(url) > 2048 or any(c.isspace() or ord(c) < 33 for c in url):
        raise Refused(
            Reason.BAD_REQUEST,
            f"webhook_url {url[:200]!r} is no http:// or https:// address.",
            status=422,
        )
    try:
        egress.check(url)
    except JobRejected as e:
        raise Refused(e.reason, e.detail, status=422) from None
    return url


def check_email(email: str | None, egress: Egress) -> str | None:
    """An e-mail address, or None for none. Raises Refused."""
    if not email:
        return None
    try:
        egress.check_mail(email)
    except JobRejected as e:
        raise Refused(e.reason, e.detail, status=422) from None
    return email
