"""What figures mean: the comparison of a tally with a reference, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence

from frond.contracts.drift import BandCompared, Compared, DriftBounds, DriftVerdict
from frond.contracts.jobs import MOST_FIGURE
from frond.contracts.modelspec import ModelManifest
from frond.drift.figures import ks, ks_critical, ks_p, psi
from frond.drift.tally import Tally


def compare(
    live: Sequence[int],
    reference: Sequence[int] | None,
    observed: tuple[int, int],
    bounds: DriftBounds,
) -> Compared:
    """Two histograms.

    Args:
        observed: observations, live and of the reference: windows, not pixels.
    """
    values = sum(live)
    n, m = (min(one, MOST_FIGURE) for one in observed)
    told = Compared(
        live=tuple(live),
        reference=_told(reference),
        values=values,
        observed=n,
        observed_reference=m,
    )
    if reference is None or not values or min(n, m) < 1:
        return told
    distance = ks(live, reference)
    p = ks_p(distance, n, m)
    size = psi(live, reference, n, m)
    if min(n, m) < bounds.windows:
        verdict = DriftVerdict.UNKNOWN
    elif p >= bounds.alpha or size < bounds.shifting:
        verdict = DriftVerdict.STABLE
    else:
        verdict = DriftVerdict.DRIFTED if size >= bounds.drifted else DriftVerdict.SHIFTING
    figures = {
        "ks": _digits(distance), "p": _digits(p), "psi": _digits(size),
        "critical": _digits(ks_critical(bounds.alpha, n, m)), "verdict": verdict,
    }  # fmt: skip
    return told.model_copy(update=figures)


def compare_bands(
    tally: Tally, manifest: ModelManifest, bounds: DriftBounds
) -> tuple[BandCompared, ...]:
    """Each band's pixels with the model's reference."""
    known = manifest.reference
    found = []
    for n, counts in enumerate(tally.bands):
        reference = known.bands[n] if known else None
        # a band without one valid pixel has nothing to say
        observed = (tally.windows, known.windows if known else 0)
        one = compare(counts.tolist(), reference, observed, bounds)
        found.append(BandCompared(band=manifest.bands[n], **dict(one)))
    return tuple(found)


def compare_scores(tally: Tally, manifest: ModelManifest, bounds: DriftBounds) -> Compared | None:
    """The scores with the model's reference; None where none were counted."""
    if not tally.scored:
        return None
    known = manifest.reference
    reference = known.scores if known and known.scores else None
    live = tally.scores.tolist()
    windows, known_windows = tally.scored, known.windows if known else 0
    if manifest.task != "segmentation":
        # a window without a find is no observation of a score, and one with many is one
        windows = tally.with_finds
        if known is not None and known.windows_with_finds is not None:
            known_windows = known.windows_with_finds
    observed = (min(sum(live), windows), min(known.found, known_windows) if known else 0)
    return compare(live, reference, observed, bounds)


def compare_finds(tally: Tally, manifest: ModelManifest, bounds: DriftBounds) -> Compared | None:
    """Windows without a find and with one or more; None where no scores were counted, or each pixel
    has one."""
    if not tally.scored or manifest.task == "segmentation":
        return None
    known = manifest.reference
    reference = None
    if known is not None and known.windows_with_finds is not None:
        reference = (known.windows - known.windows_with_finds, known.windows_with_finds)
    live = (tally.scored - tally.with_finds, tally.with_finds)
    return judge_finds(live, reference, (tally.scored, sum(reference or ())), bounds)


def judge_finds(
    live: Sequence[int],
    reference: Sequence[int] | None,
    observed: tuple[int, int],
    bounds: DriftBounds,
) -> Compared:
    """:func:`compare`, but at most ``shifting`` while anything is found: other country has other
    numbers of things, and training data is chosen for having them. Nothing at all is a model that
    sees nothing, or images with nothing to see; somebody has to look."""
    told = compare(live, reference, observed, bounds)
    if told.verdict is DriftVerdict.DRIFTED and live[-1]:
        return told.model_copy(update={"verdict": DriftVerdict.SHIFTING})
    return told


def worst(parts: Sequence[Compared]) -> DriftVerdict:
    """The most serious verdict."""
    return max((p.verdict for p in parts), key=lambda v: v.rank, default=DriftVerdict.UNKNOWN)


def _told(reference: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if reference is None else tuple(reference)


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
