"""``python -m frond.stack``."""

from frond.stack.cli import app

app(prog_name="frond-stack")
