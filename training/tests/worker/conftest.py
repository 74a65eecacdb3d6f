"""Tests of the worker: in .venv alone, for the environment that trains has none of what services need."""

import importlib.util

if importlib.util.find_spec("frond.bus") is None:
    collect_ignore_glob = ["test_*.py"]
