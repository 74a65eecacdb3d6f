"""When drift asks for training: periods in, at most one request a rest out. No clock, no store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from frond.contracts.drift import DriftVerdict
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import Moment

_AHEAD: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """When.

    Attributes:
        periods: drifted in succession.
        rest: between two requests because of one version.
        fresh: how long ago a period may have ended: what a worker finds on the topic when it is
            first told to look is history.
    """

    periods: int = 2
    rest: timedelta = timedelta(days=7)
    fresh: timedelta = timedelta(days=1)


class DriftState(BaseModel):
    """What is remembered of one version.

    Attributes:
        count: drifted periods in succession, one after the other in time.
        until: when the last period that counted, for or against, ended.
        asked: the end of the period because of which training was last asked for.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int = 0
    until: Moment | None = None
    asked: Moment | None = None


def after(
    state: DriftState, event: DriftObserved, policy: Policy, now: datetime
) -> tuple[DriftState, bool]:
    """The state after a period, and whether it asks for training.

    Periods of several processes lie beside each other in time: those that overlap are one. A period
    of which nothing can be said breaks no succession; one that comes a second time, or late, changes
    nothing.
    """
    seen = state.until is not None and event.ended <= state.until
    if event.verdict is DriftVerdict.UNKNOWN or seen or event.ended > now + _AHEAD:
        return state, False
    if event.verdict is not DriftVerdict.DRIFTED:
        return state.model_copy(update={"count": 0, "until": event.ended}), False
    if state.count and state.until is not None and event.started < state.until:
        return state, False
    counted = state.model_copy(update={"count": state.count + 1, "until": event.ended})
    rested = state.asked is None or event.ended - state.asked >= policy.rest
    if counted.count >= policy.periods and rested and now - event.ended <= policy.fresh:
        return counted.model_copy(update={"asked": event.ended}), True
    return counted, False
