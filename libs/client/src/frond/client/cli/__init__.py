"""The ``frond`` command."""

from frond.client.cli.app import app, main

__all__ = ["app", "main"]
