"""Whether a job's tenant is that of its settings. Of jobs from before, events alone may have said it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # with a default: during a roll, a process of the last version writes rows without it
    op.add_column(
        "jobs", sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    op.drop_column("jobs", "pinned")
