"""What a check of a model folder saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from frond.contracts.modelspec import ModelManifest
from frond.models.decoders import WindowResult

Level = Literal["wrong", "odd", "fine"]
Windows = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen. ``wrong``: jobs would fail or mislead; ``odd``: look at it."""

    level: Level
    text: str


@dataclass
class Report:
    """What a check saw.

    Attributes:
        manifest: None where it cannot be read.
        windows: that were looked at, uint8 [size, size, bands].
        results: one a window, at the manifest's thresholds; none where the model does not run.
        window_s: seconds that a window took.
    """

    findings: list[Finding] = field(default_factory=list)
    manifest: ModelManifest | None = None
    windows: Windows = ()
    results: Sequence[WindowResult] = ()
    window_s: float | None = None

    @property
    def fits(self) -> bool:
        """Whether nothing is wrong."""
        return all(f.level != "wrong" for f in self.findings)

    def say(self, level: Level, text: str) -> None:
        self.findings.append(Finding(level, text))
