"""tools/setup.sh says what is missing before it makes anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SETUP = Path(__file__).parents[1] / "tools/setup.sh"


def test_another_system_is_told_at_once(tmp_path: Path) -> None:
    """Not by a service that does not start minutes later: which systems there are, and the other way."""
    (tmp_path / "uname").write_text("#!/bin/sh\necho Darwin\n")
    (tmp_path / "uname").chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    said = subprocess.run(
        [bash, str(SETUP)], env={"PATH": str(tmp_path)}, cwd=tmp_path, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 1
    assert "Linux" in said.stderr and "Darwin" in said.stderr
    assert "WSL2" in said.stderr and "docker compose" in said.stderr
    assert not (tmp_path / ".venv").exists()


def test_readme_names_the_system() -> None:
    """Whoever reads what is needed need not find out."""
    readme = (SETUP.parents[1] / "README.md").read_text()
    needed = next(line for line in readme.splitlines() if line.startswith("Needed:"))
    assert "Linux (or WSL2)" in needed
