"""A history of drift as one HTML file: nothing is fetched, and nothing in it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Final

from frond.contracts.drift import Compared
from frond.contracts.visible import visible
from frond.drift.history import History, ModelHistory
from frond.drift.naming import FINDS, SCORES
from frond.drift.plots import histogram, legend, over_time

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ccc; --live: #4269d0; --ref: #222 }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #181818; --line: #444; --ref: #eee } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin: 2.5rem 0 0; font-size: 1.25rem } code { font-size: .85em; overflow-wrap: anywhere }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { text-align: right; padding: .15rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left }
.wide { overflow-x: auto } .plots { display: flex; flex-wrap: wrap; gap: 12px } figure { margin: 0 }
svg { max-width: 100%; height: auto } svg text { font-size: 11px; fill: var(--ink) }
.axis { fill: none; stroke: var(--line) } .mark { stroke: var(--line); stroke-dasharray: 4 3 }
.live { fill: var(--live); fill-opacity: .45 } .reference { fill: none; stroke: var(--ref); stroke-width: 1.5 }
.line { fill: none; stroke-width: 1.5 } .legend span { margin-right: 1rem }
.legend i { display: inline-block; width: 1rem; height: .2rem; margin-right: .35rem; vertical-align: middle }
.drifted { color: #d33; font-weight: 600 } .shifting { color: #c70; font-weight: 600 } .stable { color: #294 }
"""
_ENDS: Final = {SCORES: ("0", "1"), FINDS: ("windows without a find", "with finds")}
FIGURES: Final = ("", "counted", "windows", "KS", "critical", "p", "PSI", "PSI of late", "of late")
"""The columns of :func:`rows`: over the whole time but for the last two."""


def page(history: History) -> str:
    """The page. The same history gives the same bytes."""
    models = history.models()
    body = "".join(_model(history, one) for one in models)
    if not models:
        body = "<p>No period has ended in this time.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Drift</title>'
        f"<style>{_STYLE}</style></head><body><h1>Drift</h1>"
        f"<p>Live windows beside training data, from {_when(history.since)} to "
        f"{_when(history.until)} UTC, in steps of {_lasting(history.step)}.</p>{body}</body></html>\n"
    )


def rows(model: ModelHistory) -> list[tuple[str, ...]]:
    """A model's figures as text: see :data:`FIGURES`."""
    late, told = model.judged(model.recent()), []
    for name, one in model.judged(model.whole).items():
        now = late.get(name)
        of_late = (_number(now.psi), now.verdict.value) if now else ("–", "unknown")
        told.append((name, *_row(one), *of_late))
    return told


def _model(history: History, model: ModelHistory) -> str:
    ref, bounds = model.model, model.bounds
    judged = model.judged(model.whole)
    plots = []
    for name, one in judged.items():
        ends = _ENDS.get(name, ("0", "255"))
        if drawn := histogram(one, ends):
            plots.append(f"<figure><figcaption>{_text(name)}</figcaption>{drawn}</figure>")
    return (
        f"<h2>{_text(ref.name)} {_text(ref.version)}: {_verdict(model.verdict(model.recent()).value)}</h2>"
        f"<p><code>{_text(ref.digest)}</code><br>Of late {model.verdict(model.recent()).value}, over the whole "
        f"time {model.verdict(model.whole).value}. {model.periods} periods, {model.whole.windows} windows "
        f"looked at of {model.whole.run} in the chunks counted. Shifting from a PSI of {bounds.shifting:g}, drifted from "
        f"{bounds.drifted:g}, where chance is below {bounds.alpha:g}; at least {bounds.windows} windows.</p>"
        + _table(FIGURES, rows(model))
        + '<p class="legend"><span><i style="background:var(--live)"></i>live</span>'
        '<span><i style="background:var(--ref)"></i>training data</span></p>'
        f'<div class="plots">{"".join(plots)}</div>' + _time(history, model)
    )


def _time(history: History, model: ModelHistory) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    table = []
    names = list(model.whole.parts)
    span = max(history.until - history.since, history.step)
    for began, step in history.steps(model):
        judged = model.judged(step)
        for name, one in judged.items():
            if one.psi is not None:
                at = min(1.0, (began + history.step / 2 - history.since) / span)
                lines.setdefault(name, []).append((at, one.psi))
        figures = [_number(judged[n].psi) if n in judged else "–" for n in names]
        table.append((_when(began), str(step.windows), *figures, model.verdict(step).value))
    marks = (("shifting", model.bounds.shifting), ("drifted", model.bounds.drifted))
    drawn = over_time(lines, (_when(history.since), _when(history.until)), marks)
    plot = f"<h3>PSI over time</h3>{legend(list(lines))}{drawn}" if drawn else ""
    return plot + _table(("from, UTC", "windows", *(f"PSI {n}" for n in names), "verdict"), table)


def _row(one: Compared) -> tuple[str, ...]:
    distance = (_number(one.ks), _number(one.critical), _chance(one.p))
    return (str(one.values), str(one.observed), *distance, _number(one.psi))


def _table(columns: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(c)}</th>" for c in columns)
    lines = "".join(
        f"<tr>{''.join(f'<td>{_text(v)}</td>' for v in row[:-1])}<td>{_verdict(row[-1])}</td></tr>"
        for row in body
    )
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'


def _verdict(value: str) -> str:
    return f'<span class="{_text(value)}">{_text(value)}</span>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _chance(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value >= 0.001 or not value else f"{value:.0e}"


def _text(value: str) -> str:
    # models' names and versions are what somebody wrote
    return escape(visible(value))


def _when(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(sep=" ", timespec="minutes")[:16]


def _lasting(step: timedelta) -> str:
    minutes = step.total_seconds() / 60
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
