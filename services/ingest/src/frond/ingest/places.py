"""Object keys that only ingest reads and writes."""

from __future__ import annotations

from frond.contracts import keys
from frond.contracts.ids import digest
from frond.contracts.keys import DELETED as DELETED
from frond.contracts.keys import RECEIVING, UPLOADS, safe_name


def upload(upload_id: str, n: int, name: str) -> str:
    """The n-th file (from 0) of one multipart upload."""
    return f"{UPLOADS}{upload_id}/{n:06d}-{safe_name(name)}"


def upload_prefix(upload_id: str) -> str:
    return f"{UPLOADS}{upload_id}/"


def receiving(upload_id: str) -> str:
    """A form is being taken; says for which job, once that is known."""
    return f"{RECEIVING}{upload_id}"


PARTS = f"{RECEIVING}parts/"
"""Prefix of what is known of rasters that their senders put into the store in parts."""


def parts_of(job_id: str) -> str:
    return f"{PARTS}{job_id}/"


def parts(job_id: str, upload_id: str) -> str:
    """A raster is coming in parts: what was said of it. Gone once it is there, or given up."""
    return f"{parts_of(job_id)}{digest('parts', upload_id)}.json"


def manifest(job_id: str) -> str:
    """All files of a job that came in one upload: its outbox."""
    return f"{keys.job_prefix(job_id)}upload.json"


def listing(job_id: str) -> str:
    """A prefix that a job was started with: its outbox while the prefix is being listed."""
    return f"{keys.job_prefix(job_id)}listing.json"


def sealing(job_id: str) -> str:
    """Prefix of the marks of those who count the job's images in order to seal it: no name is claimed
    meanwhile."""
    return f"{keys.job_prefix(job_id)}sealing"


def sealing_by(job_id: str, sealer: str) -> str:
    """The mark of one of them, which nobody else takes away. Beside the mark that all shared once,
    not below it: an object is no folder in every store."""
    return f"{sealing(job_id)}-{sealer}"


def claims(job_id: str) -> str:
    return f"{keys.job_prefix(job_id)}names/"


def claim(job_id: str, name: str) -> str:
    """Which bytes have this name in the job; the first to claim it wins. An object of no bytes is a
    claim that was given back: nobody's. It is never deleted, for the store deletes nothing on
    condition that it is what was read."""
    return f"{claims(job_id)}{digest('name', name)}.json"


def replay(job_id: str, n: int) -> str:
    """Which round the n-th replay of the job's webhooks is, from 1; the first to put it has it."""
    return f"{keys.deliveries(job_id)}rounds/{n}"
