"""The figures as tables: what a person reads, on a terminal or in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Table(NamedTuple):
    """A title, the columns' names, and rows of text; every column but the first holds numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(told: Mapping[str, Any]) -> list[Table]:
    """What :func:`frond.evaluation.evaluate` gave, in the order in which one reads it."""
    if told["task"] == "segmentation":
        return [_pixels(told), *_confused(told, "pixels")]
    return [_finds(told), _matches(told), *_confused(told, "labels"), _sweep(told)]


def sentences(told: Mapping[str, Any]) -> list[str]:
    """What tables do not say: what was judged, what was left out, where the best threshold is."""
    model, data, settings = told["model"], told["dataset"], told["settings"]
    lines = [
        f"{model['name']} {model['version']} ({model['digest'][:12]}) on {data['file']} "
        f"({data['digest'][:12]}): {_count(data['images'], 'image')}, {data['megapixels']:.2f} "
        f"megapixels, at score ≥ {settings['score']:g}.",
        *told["notes"],
    ]
    if out := told["left_out"]:
        lines.append(f"{_count(len(out), 'image')} could not be judged:")
        lines += [f"  {o['image']}: {o['detail']}" for o in out]
    figures = told["figures"]
    if told["task"] == "segmentation":
        return lines
    empty = figures["without_labels"]
    if empty["images"]:
        lines.append(
            f"{_count(empty['images'], 'image')} without labels ({empty['megapixels']:.2f} megapixels): "
            f"{_count(empty['finds'], 'find')}, {number(empty['finds_a_megapixel'])} a megapixel."
        )
    if figures["count_error_an_image"] is not None:
        lines.append(
            f"An image's count is off by {number(figures['count_error_an_image'])} on average."
        )
    for how, best in figures["best"].items():
        if best is not None:
            lines.append(
                f"By {'IoU' if how == 'overlap' else how}, F1 is best at a threshold of {best['score']:g}: {number(best['f1'])}."
            )
    return lines


def number(value: float | int | None) -> str:
    """A figure as text; – where there is none."""
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _finds(told: Mapping[str, Any]) -> Table:
    rows = []
    for name, f in _by_class(told):
        error = f["count_error"]
        rows.append((name, number(f["labels"]), number(f["finds"]),
                     "–" if error is None else f"{error:+.1%}",
                     number(f["ap50"]), number(f["ap50_95"])))  # fmt: skip
    return Table(
        "Counts and average precision",
        ("class", "labels", "finds", "count error", "AP50", "AP50:95"), rows,
    )  # fmt: skip


def _matches(told: Mapping[str, Any]) -> Table:
    rows = [
        (name, *(number(f[how][k]) for how in ("centre", "overlap")
                 for k in ("precision", "recall", "f1")))
        for name, f in _by_class(told)
    ]  # fmt: skip
    iou = f"IoU {told['settings']['iou']:g}"
    return Table(
        f"Matched by centre, and by {iou}",
        ("class", "precision", "recall", "F1", f"precision, {iou}", f"recall, {iou}", f"F1, {iou}"),
        rows,
    )


def _pixels(told: Mapping[str, Any]) -> Table:
    figures = told["figures"]
    rows = [
        (name, number(f["labelled_pixels"]), number(f["found_pixels"]), number(f["iou"]),
         number(f["dice"]))
        for name, f in figures["classes"].items()
    ]  # fmt: skip
    whole = figures["overall"]
    rows.append(("mean", "", "", number(whole["iou"]), number(whole["dice"])))
    return Table(
        "Pixels, at the model's resolution",
        ("class", "labelled pixels", "found pixels", "IoU", "Dice"), rows,
    )  # fmt: skip


def _confused(told: Mapping[str, Any], what: str) -> list[Table]:
    confusion = told["figures"]["confusion"]
    names, table = confusion["names"], confusion["labels_by_finds"]
    rows = [(n, *map(str, row)) for n, row in zip(names, table, strict=True)]
    return [Table(f"Confusion: {what} down, finds across", (what, *names), rows)]


def _sweep(told: Mapping[str, Any], every: int = 10) -> Table:
    settings = told["settings"]
    marked = {settings["score"], *(b["score"] for b in told["figures"]["best"].values() if b)}
    rows = []
    for row in told["figures"]["sweep"]:
        percent = row["score"] * 100
        if row["score"] in marked or (
            abs(percent - round(percent)) < 1e-6 and not round(percent) % every
        ):
            rows.append((f"{row['score']:g}", *(number(row[how][k]) for how in ("centre", "overlap")
                         for k in ("precision", "recall", "f1"))))  # fmt: skip
    iou = f"IoU {settings['iou']:g}"
    return Table(
        "Thresholds",
        ("score", "precision", "recall", "F1", f"precision, {iou}", f"recall, {iou}", f"F1, {iou}"),
        rows,
    )


def _by_class(told: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    figures = told["figures"]
    every = list(figures["classes"].items())
    return every if len(every) == 1 else [*every, ("all", figures["overall"])]


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
