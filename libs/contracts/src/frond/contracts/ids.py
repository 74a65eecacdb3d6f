"""Ids are made from content and plan, so that doing a thing twice names it once."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
JOB_ID_IN_WORDS = (
    "A job id has 1 to 128 letters, digits, dots, dashes and underscores, "
    "and starts with a letter or a digit."
)
_JOB_ID = re.compile(JOB_ID_PATTERN)
API_KEY = re.compile(r"frond_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
"""What ``frond keys`` makes: a key's id and its secret."""
_S3_URI = re.compile(r"^s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)$", re.DOTALL)


def digest(*parts: str) -> str:
    """32 hex digits (128 bits of SHA-256) of the parts; their boundaries count."""
    h = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        h.update(len(raw).to_bytes(8, "big"))
        h.update(raw)
    return h.hexdigest()[:32]


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no blanks, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def image_id(job_id: str, image: str) -> str:
    """The id of an image: its URI within its job. The same event twice is the same image."""
    return digest("image", job_id, image)


def chunk_id(image: str, plan_digest: str, ordinal: int) -> str:
    """The id of a chunk: its image, its plan and its place in the plan."""
    return digest("chunk", image, plan_digest, str(ordinal))


def event_id(event_type: str, *parts: str) -> str:
    """The ``ce_id`` of an event: a resent event has the id of the first."""
    return digest("event", event_type, *parts)


def check_job_id(job_id: str) -> str:
    """Return the job id, or raise JobRejected when it could not name an object."""
    if not _JOB_ID.fullmatch(job_id):
        raise JobRejected(Reason.BAD_JOB_ID, JOB_ID_IN_WORDS)
    return job_id


def _nameable(key: str) -> bool:
    # S3 allows 1024 bytes; MinIO keeps each part as a folder's name
    try:
        parts = [part.encode() for part in key.split("/")]
    except UnicodeEncodeError:
        return False
    return sum(map(len, parts)) + len(parts) <= 1025 and all(
        0 < len(part) <= 255 and part not in (b".", b"..") for part in parts
    )


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key``. Raises JobRejected when it is none, or names no object."""
    m = _S3_URI.match(uri)
    if m is None or any(ord(c) < 32 for c in uri) or not _nameable(m.group(2)):
        shown = uri[:200].encode("utf-8", "replace").decode()
        raise JobRejected(
            Reason.BAD_IMAGE_URI,
            f"{shown!r} is no object address. Write s3://bucket/path/to/raster.tif, without empty "
            "or dotted folders.",
        )
    return m.group(1), m.group(2)
