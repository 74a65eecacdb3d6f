"""docs/performance.md and its plots, from what the runs gave."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from neighbours import DISTURBED

CASES = {
    "merge": "merging",
    "raster": "a whole raster on one machine",
    "saturation": "saturation: one large raster through the whole system",
    "small_files": "many small files through the whole system",
    "latency": "latency",
    "messaging": "messaging",
    "predict": "`POST /predict`",
    "scale": "scaling over workers",
    "growth": "growth over images",
    "memory": "memory at 60,000² and 5 M detections",
    "segmentation": "segmentation",
    "gpu": "GPUs",
}
"""Every benchmark there is or is to be, by name: what it measures."""

_HEAD = """\
# Performance

Written by `make bench` from its own run; not edited by hand. `make bench ONLY=merge` repeats one
benchmark and leaves the others' figures as they were. Every figure is also in `bench/results.json`
(`ratio`: theirs ÷ ours, above 1 where Frond is better).

A round takes, on two cores, some 30 minutes for memory, 15 for growth, 5 to 10 for each of the others and 2 for
latency and predict: an hour and a half in all, and `BENCH_ROUNDS` (3) times that. `BENCH_ROUNDS=1` is one round,
`BENCH_SCALE=0.05` a try of the benchmarks that run the whole system at a twentieth of their size,
`ONLY=page` this page written anew from what was measured.

The machines are shared and noisy. Contenders run interleaved, each in a process of its own, in
turn to be first; figures are medians of their rounds, with the smallest and largest beside them.
What was run once (column *rounds*) has neither, and a table of one round says so.
What other programs took of the processors meanwhile is told below each table measured since 22
November 2026, in bold where it was much: such a row says little.
Seconds are good for comparing rows of one table with each other and for nothing else.
"""


def short(lines: list[dict[str, Any]]) -> str:
    return "; ".join(f"{x['name']} {x['case']}" for x in lines if x["met"] is False) or "nothing"


def _measured(details: dict[str, Any]) -> str:
    so_far = "; ".join(about for name, about in CASES.items() if name in details)
    to_come = "; ".join(about for name, about in CASES.items() if name not in details)
    text = f"Measured here so far: {so_far or 'nothing'}."
    if to_come:
        text += f" What is not measured yet: {to_come}."
    return textwrap.fill(text, 100, break_on_hyphens=False, break_long_words=False) + "\n"


def write(lines: list[dict[str, Any]], details: dict[str, Any], docs: Path) -> None:
    """Write performance.md and its plots under ``docs``."""
    out = [_HEAD, _measured(details), "## What falls short", ""]
    missed = [x for x in lines if x["met"] is False]
    if missed:
        out += ["| benchmark | case | Frond | the other | target |", "|---|---|---|---|---|"]
        out += [
            f"| {x['name']} | {x['case']} | {_number(x['ours'])} {x['unit']} "
            f"| {_number(x['theirs'])} | {_target(x)} |"
            for x in missed
        ]
    else:
        out.append("Nothing of what has been measured.")
    out += ["", _counted(lines), ""]
    for name, part in details.items():
        versions = ", ".join(f"{k} {v}" for k, v in part["versions"].items())
        out += [
            f"## {name.capitalize().replace('_', ' ')}", "", part["about"],
            f"{_command(name, part)}, {part['when']}, commit {part['commit']}; {part['machine']}; "
            f"{versions}.", "",
        ]  # fmt: skip
        for table in part["tables"]:
            out += [f"### {table['title']}", "", *_rows(table["rows"]), ""]
            if image := _plot(table, docs / "img" / "bench"):
                out += [f"![{table['title']}](img/bench/{image})", ""]
            if note := table.get("note"):
                out += [note, ""]
            if _one_round(part, table):
                out += ["One round: its figures, no medians.", ""]
            if (others := table.get("others")) is not None:
                told = (
                    f"Other programs took {others:.1%} of the processors while this was measured."
                )
                out += [f"**{told}**" if others > DISTURBED else told, ""]
    (docs / "performance.md").write_text("\n".join(out).rstrip() + "\n")


def _counted(lines: list[dict[str, Any]]) -> str:
    met = [x for x in lines if x["met"]]
    missed = sum(1 for x in lines if x["met"] is False)
    told = (
        f"{len(met)} comparisons met their target, {missed} fell short, "
        f"{len(lines) - len(met) - missed} could not be decided."
    )
    if without := sum(1 for x in met if isinstance(x["theirs"], str)):
        told += (
            f" {without} of those that met it have no figure of the other's, which was stopped: what it "
            "had taken or held by then was enough to tell."
        )
    return textwrap.fill(told, 100, break_on_hyphens=False, break_long_words=False)


def _command(name: str, part: dict[str, Any]) -> str:
    """How this is measured again. What the environment said was not recorded at first."""
    settings = part.get("settings")
    set_so = "".join(f"{k}={shlex.quote(v)} " for k, v in (settings or {}).items())
    told = f"`{set_so}make bench ONLY={name}`"
    return told if settings is not None else f"{told} (BENCH_ settings not recorded)"


def _one_round(part: dict[str, Any], table: dict[str, Any]) -> bool:
    """Rows that say nothing of rounds had as many as were asked for."""
    return _once(table) or (
        not any("rounds" in r for r in table["rows"])
        and part.get("settings", {}).get("BENCH_ROUNDS") == "1"
    )


def _once(table: dict[str, Any]) -> bool:
    """Nothing in it was run twice."""
    return max((r.get("rounds", 0) for r in table["rows"]), default=0) == 1


def _target(line: dict[str, Any]) -> str:
    if line["ratio"] is None:
        return str(line["target"])
    return f"ratio {line['target']}, is {_number(line['ratio'])}"


def _rows(rows: list[dict[str, Any]]) -> list[str]:
    columns = [
        k for k in rows[0]
        if k not in ("over", "spread") and any(r.get(k) is not None for r in rows)
    ]  # fmt: skip
    out = [f"| {' | '.join(columns)} |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    for r in rows:
        cells = [_cell(r, k) for k in columns]
        out.append(f"| {' | '.join(cells)} |")
    return out


def _cell(row: dict[str, Any], column: str) -> str:
    if column == "seconds":
        if row.get("over"):
            return f"**{row['over']}**"
        if not row.get("spread") or row.get("rounds") == 1:
            return _number(row.get("seconds"))
        low, high = row["spread"]
        return f"{_number(row['seconds'])} ({_number(low)}–{_number(high)})"
    return _number(row.get(column))


def _number(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    if number == int(number) or abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def _plot(table: dict[str, Any], images: Path) -> str | None:
    figure_name = table["plot"]
    rows = [r for r in table["rows"] if r.get(figure_name) and not r.get("over")]
    if not rows:
        return None
    images.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", table["title"].lower()).strip("-") + ".svg"
    plt.rcParams.update({"svg.hashsalt": "frond", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(figsize=(6.4, 0.3 * len(rows) + 0.8))
    values = [r[figure_name] for r in rows]
    spreads = [r.get("spread") or [r[figure_name]] * 2 for r in rows]
    low = [max(0.0, v - s[0]) for v, s in zip(values, spreads, strict=True)]
    high = [max(0.0, s[1] - v) for v, s in zip(values, spreads, strict=True)]
    colours = ["#2f7d4f" if "Frond" in r["contender"] else "#9a9a9a" for r in rows]
    if table["title"].endswith("alone"):
        colours = ["#2f7d4f"] * len(rows)
    axes.barh(range(len(rows)), values, xerr=[low, high], color=colours, ecolor="#555555")
    axes.set_yticks(range(len(rows)), [r["contender"] for r in rows])
    axes.invert_yaxis()
    if 0 < 20 * min(values) < max(values):
        axes.set_xscale("log")
    axes.set_xlabel(figure_name if _once(table) else f"{figure_name}, median and range")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path = images / name
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    # matplotlib ends lines with spaces
    path.write_text("\n".join(x.rstrip() for x in path.read_text().splitlines()) + "\n")
    return name
