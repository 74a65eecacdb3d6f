"""What a run adds up to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass
class Figures:
    """Counts of one scenario, or of all of them added up.

    Attributes:
        jobs: submitted and acknowledged. So are ``images``.
        kills: SIGKILLs; counted by the installation. ``killed`` has them by process.
        crash_points: how often a process killed itself at a crash point; ``points`` has them by name.
        faults: other trouble that was made: freezes, network faults, disks filled, state wiped.
        lost: whatever is missing, left open, orphaned or stuck.
        doubled: whatever is there twice and differs, or took effect twice.
        different: artifacts whose bytes are not those of the calm run.
        letters: dead letters found, of ``letters_expected`` that had to be there.
        driven: how often the reconciler drove a job again.
        webhooks: deliveries that the receiver took, of ``told`` jobs, of ``asked`` that wanted one.
        messages_fuzzed: messages sent to topics that are no events of ours, of ``bytes_fuzzed``.
        inputs_fuzzed: what coverage-guided fuzzing gave to consumers' code, of ``bytes_guided``; no
            message of it was ever sent.
        exits: processes that ended by themselves with an exit status, by service and status.
        details: a sentence for each loss, double and difference.
        notes: what else a reader of the report should know.
    """

    jobs: int = 0
    images: int = 0
    kills: int = 0
    crash_points: int = 0
    faults: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    bytes_fuzzed: int = 0
    messages_fuzzed: int = 0
    inputs_fuzzed: int = 0
    bytes_guided: int = 0
    objects: int = 0
    letters_expected: int = 0
    letters: int = 0
    driven: int = 0
    asked: int = 0
    told: int = 0
    webhooks: int = 0
    seconds: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: Figures) -> Figures:
        both = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Figures(**both)

    @property
    def good(self) -> bool:
        return self.lost == self.doubled == self.different == 0

    def lose(self, what: str) -> None:
        self.lost += 1
        self._note(f"lost: {what}")

    def double(self, what: str) -> None:
        self.doubled += 1
        self._note(f"doubled: {what}")

    def differ(self, what: str) -> None:
        self.different += 1
        self._note(f"different: {what}")

    def _note(self, what: str) -> None:
        # whoever watches need not wait for the report
        print(what, flush=True)
        self.details.append(what)

    def ended_by_themselves(self) -> str:
        """Which processes did, and how often; empty when none did."""
        told = ", ".join(f"{who} {times}×" for who, times in sorted(self.exits.items()))
        return told and f"ended by themselves: {told}"

    def line(self) -> str:
        """The last line of a run."""
        names = ("jobs", "kills", "crash_points", "faults", "lost", "doubled", "different")
        return " ".join(f"{n}={getattr(self, n)}" for n in names)
