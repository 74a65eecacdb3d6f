"""docs/reliability.md, from the figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chaos.figures import Figures

if TYPE_CHECKING:
    from chaos.runner import Run


def write(path: Path, run: Run, total: Figures) -> None:
    raise NotImplementedError
