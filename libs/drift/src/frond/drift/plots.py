"""Two plots as SVG: histograms on top of each other, and lines over time. No scripts, no fonts fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from frond.contracts.drift import Compared
from frond.drift.figures import shares

WIDTH: Final = 420
HEIGHT: Final = 180
LINES: Final = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#9c6b4e", "#a463f2", "#97bbf5", "#777")
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 26
_BINS: Final = 64


def histogram(told: Compared, ends: tuple[str, str]) -> str:
    """Live as a filled area, the reference as a line; both as shares.

    Args:
        ends: what stands below the axis' ends.
    """
    live, reference = _coarse(told.live), _coarse(told.reference) if told.reference else None
    if not sum(live):
        return ""
    if reference is not None:
        a, b = (x.tolist() for x in shares(live, reference))
    else:
        a, b = [v / sum(live) for v in live], []
    top = max(*a, *(b or [0.0])) * 1.05
    parts = [_frame(top, ends, percent=True)]
    parts.append(f'<path class="live" d="{_steps(a, top)} V{HEIGHT - _BOTTOM} H{_LEFT} Z"/>')
    if b:
        parts.append(f'<path class="reference" d="{_steps(b, top)}"/>')
    return _svg(parts, "live beside reference")


def over_time(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    ends: tuple[str, str],
    marks: Sequence[tuple[str, float]],
) -> str:
    """Lines of (moment, value), moments from 0 to 1; ``marks`` lie across with their names."""
    values = [v for line in lines.values() for _, v in line]
    if not values:
        return ""
    width = 2 * WIDTH + 12
    top = max([*values, *(m for _, m in marks)]) * 1.1 or 1.0
    parts = [_frame(top, ends, width=width)]
    for name, value in marks:
        y = _y(value, top)
        parts.append(f'<path class="mark" d="M{_LEFT} {y:.1f} H{width - _RIGHT}"/>')
        parts.append(
            f'<text x="{width - _RIGHT - 4}" y="{y - 4:.1f}" text-anchor="end">{escape(name)}</text>'
        )
    for n, line in enumerate(lines.values()):
        colour = LINES[n % len(LINES)]
        at = [(_x(m, width), _y(v, top)) for m, v in line]
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        parts.append(f'<path class="line" stroke="{colour}" d="M{path}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in at]
    return _svg(parts, "over time", width)


def legend(names: Sequence[str]) -> str:
    """Which colour is which line."""
    told = (
        f'<span><i style="background:{LINES[n % len(LINES)]}"></i>{escape(name)}</span>'
        for n, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(told)}</p>'


def _coarse(counts: Sequence[int]) -> list[int]:
    """No more bins than can be told apart."""
    each = max(1, len(counts) // _BINS)
    if len(counts) % each:
        return list(counts)
    return [sum(counts[i : i + each]) for i in range(0, len(counts), each)]


def _steps(values: Sequence[float], top: float) -> str:
    each = (WIDTH - _LEFT - _RIGHT) / len(values)
    parts = [f"M{_LEFT} {_y(values[0], top):.1f}"]
    for n, (value, following) in enumerate(pairwise([*values, None])):
        assert value is not None
        parts.append(f"H{_LEFT + (n + 1) * each:.1f}")
        if following is not None:
            parts.append(f"V{_y(following, top):.1f}")
    return " ".join(parts)


def _frame(top: float, ends: tuple[str, str], *, percent: bool = False, width: int = WIDTH) -> str:
    base, right = HEIGHT - _BOTTOM, width - _RIGHT
    told = f"{100 * top:.3g} %" if percent else f"{top:.2g}"
    return (
        f'<path class="axis" d="M{_LEFT} {_TOP} V{base} H{right}"/>'
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end">{told}</text>'
        f'<text x="{_LEFT - 4}" y="{base}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{HEIGHT - 8}">{escape(ends[0])}</text>'
        f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="end">{escape(ends[1])}</text>'
    )


def _x(moment: float, width: int) -> float:
    return _LEFT + moment * (width - _LEFT - _RIGHT)


def _y(value: float, top: float) -> float:
    return _TOP + (1 - value / top) * (HEIGHT - _TOP - _BOTTOM)


def _svg(parts: Sequence[str], label: str, width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )
