"""Histories of drift, and the page made of one."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from drift_support import manifest, ref

from frond.contracts.drift import (
    LEVELS,
    MOST_COUNTED,
    SCORE_BINS,
    BandCompared,
    Compared,
    DriftBounds,
)
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import MOST_FIGURE, ModelRef
from frond.contracts.modelspec import ModelManifest
from frond.drift import Length, Periods, Tally
from frond.drift.history import STEPS, History
from frond.drift.page import FIGURES, page, rows

BEGAN = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def event(
    hour: float,
    *,
    model: ModelRef | None = None,
    value: int = 7,
    windows: int = 100,
    observer: int = 1,
    known: ModelManifest | None = None,
) -> DriftObserved:
    """A period that ended at this hour: every pixel had this value."""
    known = known or manifest(value=7, score=60)
    bins, scores = np.zeros((len(known.bands), LEVELS), np.int64), np.zeros(SCORE_BINS, np.int64)
    bins[:, value], scores[60] = 10 * windows, windows
    periods = Periods(
        f"{observer:032x}", lambda: BEGAN + timedelta(hours=hour), lambda: 0.0, Length(60, 1)
    )
    tally = Tally(bins, scores, windows, 4 * windows, windows, windows)
    (told,) = periods.saw(model or ref(0), known, tally)
    return told


def history(*events: DriftObserved) -> History:
    made = History(BEGAN, BEGAN + DAY)
    for one in events:
        made.add(one)
    return made


def test_processes_add_up() -> None:
    """Two processes' periods are one history, in any order, and an event that comes twice is one."""
    events = [event(h, observer=o) for h in (1, 2, 5.5) for o in (1, 2)]
    told = []
    for seed in (1, 2):
        some = [*events, *events]
        random.Random(seed).shuffle(some)
        (model,) = history(*some).models()
        told.append(rows(model))
        assert (model.periods, model.whole.windows, model.whole.run) == (6, 600, 2400)
        assert sorted(s.windows for s in model.steps.values()) == [200, 200, 200]
    assert told[0] == told[1]
    assert told[0][0][:3] == ("band 1", "6000", "600")


def test_the_newest_event_says_what_is_compared_with() -> None:
    """Its reference and bounds, in whatever order events come."""
    strict = event(9).model_copy(update={"bounds": DriftBounds(windows=10_000)})
    for order in ((event(1), strict), (strict, event(1))):
        (model,) = history(*order).models()
        assert model.bounds.windows == 10_000
        assert model.verdict(model.whole).value == "unknown"


def test_an_event_without_scores_does_not_undo_what_others_say_of_them() -> None:
    """The newest reference of each part counts, whatever the newest event has none of."""
    bad = [event(h, known=manifest(value=7, score=20)) for h in range(10)]
    silent = event(11).model_copy(update={"scores": None, "finds": None})
    bare = silent.bands[0].model_copy(update={"reference": None})
    later = {"number": 2, "ended": BEGAN + timedelta(hours=12), "bands": (bare,)}
    untold = silent.model_copy(update=later)
    for order in ([*bad, silent, untold], [untold, silent, *bad]):
        (model,) = history(*order).models()
        assert model.newest.scores is None
        judged = model.judged(model.whole)
        assert judged["scores"].verdict.value == model.verdict(model.whole).value == "drifted"
        assert judged["band 1"].verdict.value == "stable"


def test_events_of_other_bins_are_added_up_on_common_ones() -> None:
    """Another version's event neither ends the page nor wipes out what others have counted."""
    plain = event(1)
    coarse = plain.bands[0].model_copy(update={"live": (1000, 0, 0, 0), "reference": (1, 0, 0, 0)})
    odd = Compared(live=(7,) * 8, reference=(1,) * 4, values=56, observed=7, observed_reference=9)
    later = event(2, observer=2).model_copy(update={"bands": (coarse,), "scores": odd})
    for order in ([plain, later], [later, plain]):
        made = history(*order)
        (model,) = made.models()
        assert model.judged(model.whole)["band 1"].live == (2000, 0, 0, 0)
        assert model.judged(model.whole)["scores"].values == 156
        shown(made)


def test_the_largest_counts_add_up() -> None:
    """A thousand events with all that an event may hold are a page."""
    most = Compared(
        live=(MOST_COUNTED, 0), reference=(1, 1), values=MOST_COUNTED, observed=MOST_FIGURE,
        observed_reference=MOST_FIGURE,
    )  # fmt: skip
    band = BandCompared(band=1, **dict(most))
    made = history(*(
        event(1, observer=n).model_copy(update={"bands": (band,), "scores": most})
        for n in range(1000)
    ))  # fmt: skip
    (model,) = made.models()
    assert model.judged(model.whole)["band 1"].values == 1000 * MOST_COUNTED
    shown(made)


@pytest.mark.parametrize(
    "wrong",
    [
        {"live": ()},
        {"reference": ()},
        {"reference": (0, 0, 0, 0)},
        {"reference": (1, 1, 1)},
        {"live": (MOST_COUNTED, 1, 0, 0)},
        {"reference": (MOST_COUNTED, 1, 0, 0)},
    ],
)
def test_what_cannot_be_compared_is_no_event(wrong: dict[str, tuple[int, ...]]) -> None:
    """It is refused where it is read, and not where a page is made of it."""
    told = event(1).model_dump()
    whole = {"live": (1, 2, 3, 4), "reference": (1, 1, 1, 1), "values": 10}
    for part in ("scores", "finds"):
        assert DriftObserved.model_validate(told | {part: whole})
        with pytest.raises(ValueError, match=r"live|reference|bins|histogram"):
            DriftObserved.model_validate(told | {part: whole | wrong})


def test_bands_taken_twice_are_apart_on_the_page() -> None:
    """Three inputs of one band are three rows."""
    (model,) = history(event(1, known=manifest(value=7, bands=(1, 1, 1)))).models()
    assert [row[0] for row in rows(model)][:2] == ["band 1 (input 1)", "band 1 (input 2)"]
    assert [row[1] for row in rows(model)][:3] == ["1000"] * 3


def test_times_on_the_page_are_utc() -> None:
    """Also where somebody asked in a zone of their own."""
    zone = timezone(timedelta(hours=5, minutes=30))
    asked = History(BEGAN.astimezone(zone), (BEGAN + DAY).astimezone(zone))
    asked.add(event(3))
    plain = history(event(3))
    assert page(asked) == page(plain)
    assert "from 2026-05-01 00:00 to 2026-05-02 00:00 UTC" in page(asked)


def test_other_times_do_not_count() -> None:
    """What ended before or after is left out."""
    made = History(BEGAN + timedelta(hours=2), BEGAN + timedelta(hours=3))
    assert [made.add(event(h)) for h in (1.9, 2, 3, 3.1)] == [False, True, True, False]


def test_a_shift_shows_in_its_step_and_not_before() -> None:
    """Each step is judged by itself."""
    made = history(event(1), event(20, value=200))
    (model,) = made.models()
    verdicts = [model.verdict(step).value for _, step in made.steps(model)]
    assert verdicts == ["stable", "drifted"]


def test_a_bad_day_is_not_lost_in_a_good_week() -> None:
    """What is said first is said of the newest step with windows enough; the whole is beside it."""
    good = [event(h) for h in range(20)]
    (model,) = history(*good, event(21, value=200), event(23, windows=3)).models()
    assert model.verdict(model.whole).value == "stable"
    assert model.verdict(model.recent()).value == "drifted"
    assert [row[-1] for row in rows(model)] == ["drifted", "stable", "unknown"]
    assert 'model-0 1: <span class="drifted">' in page(history(*good, event(21, value=200)))
    (few,) = history(event(1, windows=3)).models()
    assert few.verdict(few.recent()).value == "unknown"


def test_months_are_no_more_steps_than_days() -> None:
    """Memory does not grow with time."""
    made = History(BEGAN, BEGAN + 90 * DAY)
    for hour in range(0, 90 * 24, 5):
        made.add(event(hour))
    (model,) = made.models()
    assert len(model.steps) <= STEPS + 1


def shown(made: History) -> ET.Element:
    """The page, which is well-formed but for what HTML leaves open."""
    text = page(made).replace("<!doctype html>", "")
    for void in ('<meta charset="utf-8">', '<meta name="viewport" content="width=device-width">'):
        text = text.replace(void, "")
    return ET.fromstring(text.replace("<br>", "<br/>"))


def test_the_page_has_plots_and_tables_that_line_up() -> None:
    """A plot for each band and for scores, one over time; every row has as many cells as its head."""
    other = ModelRef(name="other", digest="f" * 64, version="2")
    made = history(
        event(1), event(7, value=90), event(3, model=other, known=manifest()), event(23.9)
    )
    root = shown(made)
    assert [h.text for h in root.iter("h2")] == ["model-0 1: ", "other 2: "]
    assert len(list(root.iter("svg"))) == 4 + 3
    for table in root.iter("table"):
        assert len({len(list(row)) for row in table.iter("tr")}) == 1
    cells = [c.text for c in next(root.iter("table")).iter("th")]
    assert cells == [c or None for c in FIGURES]
    for path in root.iter("path"):
        numbers = path.attrib["d"].translate(str.maketrans("MHVLZ", "     ")).split()
        assert all(0 <= float(n) <= 900 for n in numbers)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    """Whatever a model is called."""
    evil = ModelRef(name='<script src="http://x">\x1b[31m', digest="e" * 64, version="&amp;")
    made = history(event(1, model=evil))
    text = page(made)
    shown(made)
    for bad in ("<script", "http:", "https:", "url(", "@import", "\x1b"):
        assert bad not in text.replace("&lt;script src=&quot;http:", "")


def test_no_event_is_said() -> None:
    """An empty page says so."""
    assert "No period" in page(history())
