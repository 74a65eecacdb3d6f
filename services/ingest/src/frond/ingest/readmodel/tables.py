"""The tables. Times are milliseconds since the epoch, UTC; JSON is stored as text.

A change here needs a migration beside it (``migrations/versions``).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(128), primary_key=True),
    # whose it is; None: nobody's but the admins'; "": two said different things, the same
    Column("tenant", String(256)),
    # it is the one of job.json, and whatever events say changes nothing
    Column("pinned", Boolean, nullable=False, server_default=false()),
    Column("status", String(16), nullable=False),
    Column("outcome", String(32)),
    Column("cancelled", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),  # a tombstone: events still come and change nothing
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("started", BigInteger),
    Column("finished", BigInteger),
    Column("model_name", String(64)),
    Column("model_digest", String(64)),
    Column("model_version", Text),
    Column("expected", Integer),
    # sums over the job's images, kept in the same transaction as the images' rows
    Column("seen", Integer, nullable=False),
    Column("planned", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("w_total", BigInteger, nullable=False),
    Column("w_done", BigInteger, nullable=False),
    Column("w_skipped", BigInteger, nullable=False),
    Column("w_failed", BigInteger, nullable=False),
    Column("detections", Text, nullable=False),
    Column("snapshot", Text),  # the newest JobStatusChanged
    Column("completion", Text),  # the JobCompleted
    Column("last_seq", BigInteger, nullable=False),
)
Index("jobs_by_time", jobs.c.created, jobs.c.job_id)
Index("jobs_by_status", jobs.c.status, jobs.c.created, jobs.c.job_id)
Index("jobs_by_tenant", jobs.c.tenant, jobs.c.created, jobs.c.job_id)

images = Table(
    "images",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("image_id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("uploaded", Boolean, nullable=False),  # its ImageUploaded was seen on the topic
    Column("status", String(16), nullable=False),
    Column("reason", String(64)),
    Column("detail", Text),
    Column("plan_digest", String(64)),
    Column("chunks", Integer, nullable=False),
    Column("chunks_done", LargeBinary, nullable=False),  # bitmap by ordinal
    Column("w_total", BigInteger),  # None until the image is planned
    Column("w_done", BigInteger, nullable=False),
    Column("w_skipped", BigInteger, nullable=False),
    Column("w_failed", BigInteger, nullable=False),
    Column("detections", Text, nullable=False),
    Column("updated", BigInteger, nullable=False),
)
Index("images_by_name", images.c.job_id, images.c.name, images.c.image_id)
Index("images_by_status", images.c.job_id, images.c.status, images.c.name, images.c.image_id)

events = Table(
    "events",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("type", String(16), nullable=False),
    Column("data", Text, nullable=False),
)
Index("events_by_type", events.c.job_id, events.c.type, events.c.seq)

offsets = Table(
    "offsets",
    metadata,
    Column("cluster", String(64), primary_key=True),
    Column("topic", String(255), primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, nullable=False),  # of the next message to read
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("id", String(64), primary_key=True),  # digest of scope and key
    Column("fingerprint", String(64)),  # None while an upload's bytes are not known yet
    Column("status", Integer),  # None while the first request is under way
    Column("location", Text),
    Column("body", Text),
    Column("locked_until", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
)
Index("idempotency_by_time", idempotency.c.created)
