"""The commit tracker never lets an offset pass one whose message is unfinished."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from frond.bus.tracker import CommitTracker


class Tracking(RuleBasedStateMachine):
    """Against a model that keeps every offset and looks at all of them each time."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = CommitTracker()
        self.added: list[int] = []
        self.done: set[int] = set()

    @rule(gap=st.integers(1, 5))
    def add(self, gap: int) -> None:
        offset = (self.added[-1] if self.added else -1) + gap
        self.tracker.add(offset)
        self.added.append(offset)

    @precondition(lambda self: self.added)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(self.added))
        self.tracker.finish(offset)
        self.done.add(offset)

    @invariant()
    def never_past_what_is_unfinished(self) -> None:
        prefix = []
        for offset in self.added:
            if offset not in self.done:
                break
            prefix.append(offset)
        assert self.tracker.committable == (prefix[-1] + 1 if prefix else None)
        assert self.tracker.in_flight == len(self.added) - len(prefix)


TestTracking = Tracking.TestCase


def test_offsets_must_ascend() -> None:
    """Taking up an offset twice is a bug of the caller, and is refused."""
    tracker = CommitTracker()
    tracker.add(5)
    with pytest.raises(ValueError, match="5"):
        tracker.add(5)


def test_offsets_without_a_message_are_passed_when_nothing_is_in_flight() -> None:
    """What reading has come past is done, but never past what is unfinished, nor back."""
    tracker = CommitTracker()
    tracker.pass_to(0)
    assert tracker.committable is None
    tracker.pass_to(3)
    assert tracker.committable == 3
    tracker.add(3)
    tracker.pass_to(5)
    assert tracker.committable == 3
    tracker.finish(3)
    tracker.pass_to(2)
    assert tracker.committable == 4
    tracker.pass_to(5)
    assert tracker.committable == 5
