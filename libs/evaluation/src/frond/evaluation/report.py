"""A report in a folder: figures.json, report.md, and a plot of the sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from frond.evaluation.tables import Table, sentences, tables

FIGURES: Final = "figures.json"
REPORT: Final = "report.md"
SWEEP: Final = "sweep.png"


def as_text(told: Mapping[str, Any]) -> str:
    """The figures as JSON: sorted keys, no time of day; the same figures give the same bytes."""
    return json.dumps(told, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(told: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the report of what :func:`frond.evaluation.evaluate` gave; returns its files."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, report = folder / FIGURES, folder / REPORT
    figures.write_text(as_text(told), encoding="utf-8")
    written = [figures, report]
    plotted = told["task"] == "detection" and any(told["figures"]["best"].values())
    if plotted:
        written.append(_plot(told, folder / SWEEP))
    report.write_text(_markdown(told, plotted), encoding="utf-8")
    return written


def _markdown(told: Mapping[str, Any], plotted: bool) -> str:
    model, versions = told["model"], told["versions"]
    parts = [f"# {_cell(model['name'])} on {_cell(told['dataset']['file'])}", ""]
    parts += [f"{_cell(s)}  " for s in sentences(told)]
    for table in tables(told):
        parts += ["", f"## {table.title}", "", *_rows(table)]
    if plotted:
        parts += ["", f"![Precision, recall and F1 by threshold]({SWEEP})"]
    parts += [
        "", "## What this is of", "",
        f"- model {model['digest']}",
        f"- labels and images {told['dataset']['digest']}",
        f"- {', '.join(f'{k} {v}' for k, v in sorted(versions.items()))}; "
        f"{', '.join(told['providers'])}",
        "- settings " + ", ".join(f"{k} {v:g}" for k, v in sorted(told["settings"].items())),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _rows(table: Table) -> list[str]:
    rule = "|".join(["---", *["--:"] * (len(table.columns) - 1)])
    lines = [table.columns, *table.rows]
    head, *rest = ["| " + " | ".join(map(_cell, row)) + " |" for row in lines]
    return [head, f"|{rule}|", *rest]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _plot(told: Mapping[str, Any], path: Path) -> Path:
    # of no use to whoever wants figures alone
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sweep, settings = told["figures"]["sweep"], told["settings"]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    titles = {"centre": "matched by centre", "overlap": f"matched by IoU {settings['iou']:g}"}
    for n, (how, title) in enumerate(titles.items(), 1):
        axes = figure.add_subplot(1, 2, n)
        for field, name, colour in (
            ("precision", "precision", "#3b6fb0"), ("recall", "recall", "#b0733b"),
            ("f1", "F1", "#2f7d4f"),
        ):  # fmt: skip
            rows = [(r["score"], r[how][field]) for r in sweep if r[how][field] is not None]
            axes.plot([r[0] for r in rows], [r[1] for r in rows], color=colour, label=name)
        axes.axvline(settings["score"], color="#777777", linewidth=0.8, linestyle="--")
        best = told["figures"]["best"][how]
        if best:
            axes.plot([best["score"]], [best["f1"]], "o", color="#2f7d4f")
        axes.set(title=title, xlabel="threshold", xlim=(0, 1), ylim=(0, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path
