"""A family of graphs, as it is recognised by its outputs, and the small tests that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from frond.models.graph import Output, Told

Scaling = Literal["unit", "imagenet"]


@dataclass(frozen=True)
class Family:
    """A reading of a graph's outputs.

    Attributes:
        why: what it was recognised by, for people.
        params: of the decoder.
        doubts: of these parameters, by name: what speaks for another value.
        classes: how many there are; None where the outputs do not show it.
        at_least: so many, where they do not: those that were seen in the trial runs.
        skipped: the channel that is no class, whose name is left out.
        scaling: how images are usually given to such graphs.
    """

    decoder: str
    why: str
    task: str = "detection"
    params: dict[str, Any] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    classes: int | None = None
    at_least: int = 1
    skipped: int | None = None
    scaling: Scaling = "unit"
    score: float = 0.25


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to tell a family by; ``rows`` windows were given at once."""

    outputs: Sequence[Output]
    size: int
    told: Told
    rows: int = 1


def named(outputs: Sequence[Output], words: dict[str, tuple[str, ...]]) -> dict[str, Output] | None:
    """Outputs by role where each name has a word of its role; None where one has none."""
    found: dict[str, Output] = {}
    for role, hints in words.items():
        exact = [o for o in outputs if o.name == role]
        fitting = exact or [o for o in outputs if any(h in o.name.lower() for h in hints)]
        if not fitting or fitting[0] in found.values():
            return None
        found[role] = fitting[0]
    return found


def renamed(roles: dict[str, Output]) -> dict[str, Any]:
    """``outputs`` of the parameters, for those that go by other names than their roles."""
    other = {role: o.name for role, o in roles.items() if o.name != role}
    return {"outputs": other} if other else {}


def reach(o: Output) -> float:
    """How far from 0 it gets."""
    return max(float(np.abs(v).max()) if v.size else 0.0 for v in o.runs)


def only_peaks(heat: NDArray[Any]) -> bool:
    """Whether no two cells that touch are both above 0."""
    on = heat > 0
    beside = (
        (on[:, :, 1:] & on[:, :, :-1]).any() or (on[:, 1:] & on[:, :-1]).any()
        or (on[:, 1:, 1:] & on[:, :-1, :-1]).any() or (on[:, 1:, :-1] & on[:, :-1, 1:]).any()
    )  # fmt: skip
    return bool(on.any() and not beside)


def unit_boxes(rows: NDArray[Any]) -> bool:
    """Whether rows begin with a box in shares of the window."""
    return bool(rows[..., :4].size and rows[..., :4].min() > -0.5 and rows[..., :4].max() < 1.5)


def count(number: int, what: str) -> str:
    """1 score, 2 scores."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def plain(value: float) -> float | int:
    """4 for 4.0."""
    return int(value) if value == int(value) else value
