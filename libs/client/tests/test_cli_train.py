"""``frond train`` runs in training's own environment, and says how to make one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from frond.client.cli.train import ENVIRONMENT, environment
from frond.client.errors import FrondClientError

needs_none = pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="this environment can train itself"
)


def stand_in(root: Path) -> Path:
    """A Python that tells what it is asked to run, and ends with 3."""
    python = root / ENVIRONMENT
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    python.chmod(0o755)
    return python


@needs_none
def test_the_nearest_environment_upwards(tmp_path: Path) -> None:
    """From any folder of the repository the environment at its root is found."""
    python = stand_in(tmp_path)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert environment(below) == str(python)


@needs_none
def test_how_to_make_one_is_told(tmp_path: Path) -> None:
    """Without an environment, the sentence names the command that makes it."""
    with pytest.raises(FrondClientError, match="make train-env"):
        environment(tmp_path)


@needs_none
def test_arguments_and_exit_code_go_through(tmp_path: Path) -> None:
    """Options are training's own, --help too; its exit code is the command's."""
    stand_in(tmp_path)
    done = subprocess.run(
        [
            sys.executable, "-c", "from frond.client.cli import main; main()",
            "train", "palm", "--config", "c.yaml", "--help",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=60, env=dict(os.environ),
    )  # fmt: skip
    assert done.stdout.split() == ["-m", "frond.training", "palm", "--config", "c.yaml", "--help"]
    assert done.returncode == 3
