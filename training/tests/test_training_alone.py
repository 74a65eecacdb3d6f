"""Two processes that want to make the same model's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from training_support import SMALL

from frond.contracts.errors import UserError
from frond.training import run
from frond.training.palm.config import Settings


def settings(folder: Path, name: str) -> Settings:
    return Settings.model_validate(
        {**SMALL, "data": folder, "out": folder / "m", "run": folder / name, "track": "off"}
    )


def test_the_second_is_refused_before_it_begins(tmp_path: Path) -> None:
    """With a run's folder of its own too: what the first makes stays, and the second does nothing."""
    begun = tmp_path / ".m.new-begun"
    begun.mkdir()
    with run.alone(settings(tmp_path, "one")):
        for second in (run.full, run.evaluate):
            with pytest.raises(UserError, match="Another process makes the model"):
                second("palm", settings(tmp_path, "two"))
    assert begun.is_dir()
    assert not (tmp_path / "two" / "prepared").exists()
    assert not list(tmp_path.glob(".*.lock"))


def test_it_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Exit code 2; whoever held the folder before is gone, and then it may be had."""
    file = tmp_path / "c.yaml"
    told = settings(tmp_path, "two").model_dump(mode="json", exclude_none=True)
    file.write_text(yaml.safe_dump(told))
    command = [sys.executable, "-m", "frond.training", "evaluate", "palm", "--config", str(file)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

    def said() -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        return " ".join(done.stderr.replace("│", " ").split())

    with run.alone(settings(tmp_path, "one")):
        assert "Wait for it, or use another --out." in said()
    assert "nothing was trained here yet" in said()
