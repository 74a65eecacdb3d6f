"""A model folder put to the test, in plain words: what does not fit, and what looks odd."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frond.contracts.errors import ModelRejected, ModelUnavailable, RasterRejected, UserError
from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.models.decoders import WindowDetections, WindowPlanes, WindowResult, detections_of
from frond.models.folder import load_manifest
from frond.models.graph import drawn
from frond.models.guess import PLACEHOLDER
from frond.models.report import Finding, Report, Windows
from frond.models.session import ModelSession

_SLOW_S: Final = 1.0
_TRIES: Final = 3
_FEW: Final = 3
_LARGE_SIDE: Final = 10_000
_NAMED: Final = 20
_LOOKED_AT: Final = 1000
_ALIKE: Final = 1e-2
"""How far a window's values may be from those that it has alone, as a share."""


def check(
    folder: Path, sample: Callable[[ModelSession], Windows] | None = None, threads: int = 0
) -> Report:
    """Load a folder, run it on a sample, and tell what there is to tell.

    Never raises ModelRejected nor ModelUnavailable. A model that a server runs is given the sample
    there, wherever that is.

    Args:
        sample: gives windows, uint8 [size, size, bands], at least one; drawn ones where None. Where
            it cannot be read, that is raised.
    """
    report = Report()
    try:
        report.manifest = manifest = load_manifest(folder)
        session = ModelSession(
            folder, manifest, providers=("CPUExecutionProvider",), threads=threads
        )
    except (ModelRejected, ModelUnavailable) as e:
        report.say("wrong", _sentence(e))
        return report
    spec = manifest.input
    report.say(
        "fine",
        f"It loads: {manifest.task}, decoder {manifest.decoder.name}, windows of "
        f"{spec.size}×{spec.size} ({spec.layout}, {spec.dtype}), {session.batch} a run.",
    )
    _unfinished(report, manifest)
    _judge_server(report, manifest)
    try:
        report.windows = sample(session) if sample else drawn_windows(manifest)
    except (ModelRejected, ModelUnavailable) as e:
        report.say("wrong", _sentence(e))
        return report
    try:
        fed = [_ordered(w, session) for w in report.windows]
        report.results = _decoded(session, fed, manifest.thresholds)
        _judge(report, session, fed)
    except (ModelRejected, ModelUnavailable, RasterRejected) as e:
        report.say("wrong", _sentence(e))
    return report


def drawn_windows(manifest: ModelManifest) -> Windows:
    """Two drawn windows for a model to look at."""
    return [drawn(manifest.input.size, len(manifest.bands), seed) for seed in (1, 2)]


def _sentence(e: UserError | ModelUnavailable) -> str:
    return e.detail if isinstance(e, UserError) else f"{e}."


def _unfinished(report: Report, manifest: ModelManifest) -> None:
    if any(c.startswith(PLACEHOLDER) or c.isdigit() for c in manifest.classes):
        first = manifest.classes[0]
        report.say("odd", f"classes are called {first} …: write their names into model.yaml.")
    if manifest.gsd_m is None:
        report.say(
            "odd",
            "gsd_m is not set: rasters are read at their own resolution, and a raster finer or "
            "coarser than the training images is read wrongly.",
        )
    if not manifest.licence:
        report.say("odd", "licence is empty: say who may use the weights.")
    known, score = manifest.reference, manifest.thresholds.score
    if known is not None and manifest.task != "segmentation" and score > known.score:
        report.say(
            "odd",
            f"thresholds.score is {score:g} and reference.score {known.score:g}: the reference holds "
            "scores that jobs will not have, so that drift does not look at scores and finds. Measure it "
            "anew: frond models reference.",
        )


def _judge_server(report: Report, manifest: ModelManifest) -> None:
    if (server := manifest.server) is None:
        return
    report.say(
        "fine",
        f"The server at {server.url} runs it, and was sent the sample. An installation sends "
        "windows there only where FROND_MODEL_SERVERS names it.",
    )
    if server.version is None:
        report.say(
            "odd",
            "server.version is not set: the server may take another version while a job runs. Name "
            "one of those that it has.",
        )


def _judge(report: Report, session: ModelSession, fed: Windows) -> None:
    manifest = session.manifest
    first = session.run([fed[0]])
    again = session.run([fed[0]])
    if _differ(first, again):
        report.say(
            "wrong",
            "Two runs on one window gave different bytes. Export it in evaluation mode, without "
            "dropout or random sampling: a job that is run again must give the same results.",
        )
    else:
        report.say("fine", "The same window gives the same bytes twice.")
    # a graph with NMS inside gives nothing wherever it finds nothing
    silent = manifest.task == "detection" and not sum(
        map(len, detections_of(_at_any_score(session, fed)))
    )
    if not silent and not any(_differ(first, session.run([w])) for w in _others(session)):
        report.say(
            "wrong",
            "Its outputs are the same bytes for quite different windows: it does not see its input, is "
            "not trained, or everything is cut off on the way. Check normalization.",
        )
    _judge_batch(report, session, fed, first)
    _judge_scaling(report, session, fed)
    _judge_rows(report, manifest, first)
    if manifest.task == "segmentation":
        _judge_planes(report)
    elif manifest.task == "detection":
        _judge_boxes(report, session, fed)
    _judge_time(report, session, fed)


def _judge_rows(
    report: Report, manifest: ModelManifest, outputs: Mapping[str, NDArray[Any]]
) -> None:
    """Queries and classes in one output: a YOLO's, whose anchors are along the last axis, looks the same."""
    if manifest.decoder.name != "detr":
        return
    for output in outputs.values():
        if output.ndim == 3 and output.shape[1] < output.shape[2] == len(manifest.classes) + 4:
            report.say(
                "odd",
                f"{len(manifest.classes)} classes for {output.shape[1]} rows: is it transposed? Of a "
                "YOLO with boxes in shares it would be; of RT-DETR the rows are its queries.",
            )


def _differ(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> bool:
    return any(a[k].shape != b[k].shape or a[k].tobytes() != b[k].tobytes() for k in a)


def _others(session: ModelSession) -> Windows:
    """Windows that have nothing in common: a model of one rare thing may see nothing in most."""
    size, bands = session.manifest.input.size, len(session.manifest.bands)
    noise = np.random.default_rng(7).integers(0, 256, (size, size, bands), dtype=np.uint8)
    cell = max(1, size // 8)
    large = noise[::cell, ::cell].repeat(cell, axis=0).repeat(cell, axis=1)[:size, :size]
    windows = [noise, large, *(drawn(size, bands, n) for n in range(3))]
    return [_ordered(w, session) for w in windows]


def _judge_batch(
    report: Report, session: ModelSession, fed: Windows, alone: dict[str, NDArray[Any]]
) -> None:
    if session.batch == 1:
        report.say("fine", "It runs one window at a time.")
        return
    rows = [fed[0], *(255 - w for w in fed[:1])] * session.batch
    change = _change(session, alone, session.run(rows[: session.batch]))
    if change:
        report.say(
            "wrong",
            f"A window's outputs change with the windows beside it in a batch ({change}). "
            "Export it in evaluation mode (batch normalisation), or set input.batch to 1.",
        )
    else:
        report.say("fine", f"Batches of {session.batch} give what single windows give.")


def _change(
    session: ModelSession, alone: dict[str, NDArray[Any]], together: dict[str, NDArray[Any]]
) -> str:
    """What is another in the first window's outputs where there are others; "" where that is nothing."""
    if all(together[k].shape[1:] == v.shape[1:] for k, v in alone.items()):
        worst = max(_apart(v[0], together[k][0]) for k, v in alone.items())
        return f"by {worst:.0%}" if worst > _ALIKE else ""
    # a graph that selects or suppresses fills its rows up to those of the window with the most
    thresholds = session.manifest.thresholds
    one, beside = (_values(session.decode(v, thresholds)[0]) for v in (alone, together))
    if len(one) != len(beside):
        return f"{_count(len(one), 'box', 'boxes')} alone, {len(beside)} among others"
    worst = _apart(one, beside)
    return f"what is found, by {worst:.0%}" if worst > _ALIKE else ""


def _apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    """How far two arrays of one shape are from each other, as a share of the first one's values."""
    far = np.abs(b.astype(np.float64) - a.astype(np.float64)).max(initial=0.0)
    return float(far / np.abs(a.astype(np.float64)).max(initial=1.0))


def _values(result: WindowResult) -> NDArray[Any]:
    if isinstance(result, WindowPlanes):
        return result.planes
    return np.column_stack([result.boxes, result.scores, result.classes])


def _judge_scaling(report: Report, session: ModelSession, fed: Windows) -> None:
    """Whether pixels reach the graph in the range it was trained with, as far as that shows."""
    manifest = session.manifest
    norm = manifest.normalization
    plain = manifest.input.dtype != "uint8" and norm.scale == 1 and set(norm.std) == {1.0}
    results = _at_any_score(session, fed)
    if saturated(results):
        more = (
            "Pixels reach it as 0…255 and most graphs expect 0…1: try normalization: {scale: "
            "0.00392156862745098}."
            if plain
            else "Check normalization against what the model was trained with, and that the "
            "activation is not applied twice."
        )
        report.say("odd", f"Its scores are all 0 or 1, nothing between. {more}")
    elif plain:
        report.say(
            "odd",
            "normalization is not set: pixels reach the graph as 0…255. Most are trained with 0…1 "
            "(scale: 0.00392156862745098); leave it only if this one is not.",
        )


def saturated(results: Sequence[WindowResult]) -> bool:
    """Whether all scores are at an end of their range, and at least one at the upper one."""
    parts = [
        r.planes[:-1].ravel() / 255 if isinstance(r, WindowPlanes) else r.scores for r in results
    ]
    scores: NDArray[Any] = np.concatenate(parts) if parts else np.empty(0)
    if not len(scores) or scores.max() < 0.99:
        return False
    return bool(((scores < 0.004) | (scores > 0.996)).mean() > 0.999)


def _judge_planes(report: Report) -> None:
    planes = [r.planes for r in report.results if isinstance(r, WindowPlanes)]
    assert report.manifest is not None
    classes = np.stack([classes_of(p, report.manifest.thresholds.score) for p in planes])
    if classes.min() == classes.max():
        names = ("background", *report.manifest.classes)
        report.say(
            "odd",
            f"Every pixel of the sample is {names[int(classes.flat[0])]}. Where it should not be: "
            "check decoder.params.background and activation, and normalization.",
        )
    if all(int(p.max()) == int(p.min()) for p in planes):
        report.say("odd", "All pixels of the sample have the same scores.")
    shares = np.bincount(classes.ravel(), minlength=len(report.manifest.classes) + 1) / classes.size
    told = [
        f"{name} {_percent(s)}" for name, s in zip(report.manifest.classes, shares[1:], strict=True)
    ]
    named = told if len(told) <= _NAMED else [*told[:_NAMED], f"{len(told) - _NAMED} classes more"]
    report.say(
        "fine",
        f"Of the pixels of {_count(len(planes), 'window', 'windows')}, at score ≥ "
        f"{report.manifest.thresholds.score:g}: {', '.join(named)}; of no class {_percent(shares[0])}.",
    )


def classes_of(planes: NDArray[np.uint8], score: float) -> NDArray[np.intp]:
    """[h, w] of one window's planes: 0 where no class reaches ``score`` and beats its rival."""
    best = planes[:-1].argmax(axis=0)
    value = np.take_along_axis(planes[:-1], best[None], axis=0)[0]
    return np.where((value >= score * 255) & (value > planes[-1]), best + 1, 0)


def _judge_boxes(report: Report, session: ModelSession, fed: Windows) -> None:
    manifest, size = session.manifest, session.manifest.input.size
    every = detections_of(_at_any_score(session, fed))
    found = detections_of(report.results)
    boxes = np.concatenate([f.boxes for f in every])
    scores = np.concatenate([f.scores for f in every])
    if not len(boxes):
        report.say(
            "odd", "Not one box came out, at any score: try it on an image with objects (--image)."
        )
        return
    if float(scores.max()) == 0:
        report.say("odd", "All scores are 0: try it on an image with objects (--image).")
    elif len(scores) > _FEW and float(np.ptp(scores)) < 1e-3:
        report.say("odd", f"All {len(scores)} scores are {scores[0]:.3g}.")
    if len(boxes) > _FEW and float(np.ptp(boxes, axis=0).max()) < 0.5:
        report.say("odd", f"All {len(boxes)} boxes are the same one.")
    if float(np.abs(boxes).max()) <= 2 < size:
        report.say(
            "wrong",
            f"All boxes lie within 2 pixels of the window's corner: their coordinates look like "
            f"shares of the window (0…1). The decoder {manifest.decoder.name} needs pixels of the "
            f"window (0…{size}); export it so, or take the decoder detr, or boxes: centres of yolo-end2end.",
        )
    best = np.concatenate([f.boxes for f in found])
    middle = (best[:, :2] + best[:, 2:]) / 2
    outside = ((middle < -size * 0.1) | (middle > size * 1.1)).any(axis=1)
    if len(best) and outside.mean() > 0.2:
        report.say(
            "odd",
            f"{outside.mean():.0%} of the boxes lie outside their window: coordinates may be of "
            f"another input size than {size}, or corners where the decoder takes centres.",
        )
    most = manifest.max_detections
    if most is not None and any(len(f) >= most for f in found):
        report.say(
            "odd",
            f"A window has {most} boxes, as many as max_detections lets pass: the others are dropped. "
            "Take max_detections out of model.yaml, raise thresholds.score, or check normalization.",
        )
    _judge_margin(report, found, manifest)
    report.say(
        "fine",
        f"{_count(sum(map(len, found)), 'box', 'boxes')} in {_count(len(found), 'window', 'windows')} "
        "at score ≥ "
        f"{manifest.thresholds.score:g}; the best score is {scores.max():.3g}.",
    )


def _judge_margin(report: Report, found: list[WindowDetections], manifest: ModelManifest) -> None:
    sides = np.concatenate(
        [np.zeros(1)] + [np.ravel(f.boxes[:, 2:] - f.boxes[:, :2]) for f in found]
    )
    largest = float(np.percentile(sides, 99)) if len(sides) > 20 else float(sides.max())
    if largest / 2 > manifest.margin:
        report.say(
            "odd",
            f"Boxes are up to {largest:.0f} pixels wide and margin is {manifest.margin}: what lies on "
            f"a window's border is seen in part. Set margin to {math.ceil(largest / 2)} or more.",
        )


def _judge_time(report: Report, session: ModelSession, fed: Windows) -> None:
    batch = [fed[n % len(fed)] for n in range(session.batch)]
    took = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        session.decode(session.run(batch), session.manifest.thresholds)
        took.append(time.perf_counter() - started)
    each = report.window_s = min(took) / len(batch)
    spec = session.manifest
    where = "on its server, with the way there" if session.remote else "on this machine's CPU"
    core = spec.input.size - 2 * spec.margin
    count = math.ceil(_LARGE_SIDE / core) ** 2
    report.say(
        "odd" if each > _SLOW_S else "fine",
        f"A window takes {each * 1000:.0f} ms {where}: {count} windows, a raster of "
        f"{_LARGE_SIDE}×{_LARGE_SIDE} pixels at the model's resolution, {_lasting(count * each)}.",
    )


def _decoded(
    session: ModelSession, fed: Windows, thresholds: ModelThresholds
) -> Sequence[WindowResult]:
    found: list[WindowResult] = []
    for i in range(0, len(fed), session.batch):
        part = fed[i : i + session.batch]
        found += session.decode(session.run(part), thresholds)
    return found


def _at_any_score(session: ModelSession, fed: Windows) -> Sequence[WindowResult]:
    """Each window's best thousand boxes, with those that NMS would drop; planes as they are."""
    found = _decoded(session, fed, ModelThresholds(score=0, nms_iou=1))
    return [
        one if isinstance(one, WindowPlanes)
        else WindowDetections(one.boxes[:_LOOKED_AT], one.scores[:_LOOKED_AT], one.classes[:_LOOKED_AT])
        for one in found
    ]  # fmt: skip


def _ordered(window: NDArray[np.uint8], session: ModelSession) -> NDArray[np.uint8]:
    return window if session.layout == "HWC" else np.ascontiguousarray(window.transpose(2, 0, 1))


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{share * 100:.3g} %"


def _lasting(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


__all__ = ["Finding", "Report", "check", "classes_of", "drawn_windows", "saturated"]
