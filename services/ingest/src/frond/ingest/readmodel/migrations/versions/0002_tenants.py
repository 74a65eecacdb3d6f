"""Jobs belong to tenants. Those from before belong to none: admins see them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("tenant", sa.String(256)))
    op.create_index("jobs_by_tenant", "jobs", ["tenant", "created", "job_id"])


def downgrade() -> None:
    op.drop_index("jobs_by_tenant", "jobs")
    op.drop_column("jobs", "tenant")
