"""Alembic's environment: the connection is the caller's, and so is its transaction."""

from __future__ import annotations

from alembic import context

from frond.ingest.readmodel.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
