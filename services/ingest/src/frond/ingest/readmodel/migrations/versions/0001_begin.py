"""Jobs, images, events, offsets, idempotency keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(128), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(32)),
        sa.Column("cancelled", sa.Boolean, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger),
        sa.Column("finished", sa.BigInteger),
        sa.Column("model_name", sa.String(64)),
        sa.Column("model_digest", sa.String(64)),
        sa.Column("model_version", sa.Text),
        sa.Column("expected", sa.Integer),
        sa.Column("seen", sa.Integer, nullable=False),
        sa.Column("planned", sa.Integer, nullable=False),
        sa.Column("running", sa.Integer, nullable=False),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("w_total", sa.BigInteger, nullable=False),
        sa.Column("w_done", sa.BigInteger, nullable=False),
        sa.Column("w_skipped", sa.BigInteger, nullable=False),
        sa.Column("w_failed", sa.BigInteger, nullable=False),
        sa.Column("detections", sa.Text, nullable=False),
        sa.Column("snapshot", sa.Text),
        sa.Column("completion", sa.Text),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("jobs_by_time", "jobs", ["created", "job_id"])
    op.create_index("jobs_by_status", "jobs", ["status", "created", "job_id"])
    op.create_table(
        "images",
        sa.Column("job_id", sa.String(128), primary_key=True),
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("uploaded", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("detail", sa.Text),
        sa.Column("plan_digest", sa.String(64)),
        sa.Column("chunks", sa.Integer, nullable=False),
        sa.Column("chunks_done", sa.LargeBinary, nullable=False),
        sa.Column("w_total", sa.BigInteger),
        sa.Column("w_done", sa.BigInteger, nullable=False),
        sa.Column("w_skipped", sa.BigInteger, nullable=False),
        sa.Column("w_failed", sa.BigInteger, nullable=False),
        sa.Column("detections", sa.Text, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
    )
    op.create_index("images_by_name", "images", ["job_id", "name", "image_id"])
    op.create_index("images_by_status", "images", ["job_id", "status", "name", "image_id"])
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(128), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_index("events_by_type", "events", ["job_id", "type", "seq"])
    op.create_table(
        "offsets",
        sa.Column("cluster", sa.String(64), primary_key=True),
        sa.Column("topic", sa.String(255), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "idempotency",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("status", sa.Integer),
        sa.Column("location", sa.Text),
        sa.Column("body", sa.Text),
        sa.Column("locked_until", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("idempotency_by_time", "idempotency", ["created"])


def downgrade() -> None:
    for name in ("idempotency", "offsets", "events", "images", "jobs"):
        op.drop_table(name)
