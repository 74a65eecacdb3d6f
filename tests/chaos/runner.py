"""Scenarios one after the other, then the calm reference, then the verdict."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Final

from chaos.calm import calm_digests
from chaos.feeder import Feeder
from chaos.figures import Figures
from chaos.installation import SECRET, Installation
from chaos.jobs import NUMBERS, JobPlan
from chaos.letters import Rubbish
from chaos.oracle import Oracle
from chaos.receiver import Delivery, Mode, Receiver
from chaos.sabotage import KINDS, Harm, harm
from chaos.scenarios import Scenario
from chaos.verdict import compare
from chaos.verify import verify
from chaos.watch import Watch
from chaos.world import World
from frond.contracts import topics

_EVERY_S: Final = 5.0
_OVERTIME_S: Final = 3000.0
_SHORT_S: Final = 420.0
FULL_S: Final = 900.0
"""A run of this many seconds or more asks the whole of each scenario; a shorter one, less."""
_SHOWN: Final = 50


class Ticker:
    """A line every few seconds while something runs."""

    def __init__(self, what: str, figures: Callable[[], str]) -> None:
        self.what = what
        self.began = time.monotonic()
        self._figures = figures
        self._said = ""
        self._task = asyncio.create_task(self._run())

    def say(self, text: str) -> None:
        self._said = text

    def stop(self) -> float:
        """Seconds since it began."""
        self._task.cancel()
        return time.monotonic() - self.began

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            seconds = time.monotonic() - self.began
            print(f"  {self.what} {seconds:4.0f} s: {self._figures()} {self._said}", flush=True)


class Run:
    """One run of the program.

    Attributes:
        outcomes: the figures of each scenario that was run, by name.
        courses: of each, seconds of the epoch and how many images were done until then.
        interrupted: whether :meth:`interrupt` was called.
        harms: what was done on purpose, and in which scenario.
    """

    def __init__(
        self, folder: Path, *, seed: int, duration: float, short: bool,
        sabotage: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.folder = folder
        self.seed = seed
        self.duration = duration
        self.short = short
        self.sabotage = sabotage
        self.harms: list[tuple[str, Harm]] = []
        self.receiver = Receiver(SECRET)
        self.outcomes: dict[str, Figures] = {}
        self.courses: dict[str, list[tuple[float, int]]] = {}
        self.plans: dict[str, dict[str, JobPlan]] = {}
        self._digests: dict[str, dict[str, bytes]] = {}
        self._posted = 0
        self.interrupted = False
        self._trouble: asyncio.Task[None] | None = None

    def interrupt(self) -> None:
        """Make no more trouble; what was submitted until now is judged all the same."""
        self.interrupted = True
        if self._trouble is not None:
            self._trouble.cancel()

    async def all(self, scenarios: list[Scenario]) -> Figures:
        """Run scenarios, then compare with a calm run; the sum of their figures."""
        self.receiver.start()
        # a scenario that takes longer, for what it asks at least, takes nothing from the others
        share = self.duration / max(1, len(scenarios))
        try:
            for group in _grouped(scenarios, self.short):
                if not self.interrupted:
                    await self._group(group, share)
            await self._compare()
        finally:
            self.receiver.close()
        for name, done in self.harms:
            noticed = "noticed" if done.noticed(self.outcomes[name]) else "NOT NOTICED"
            figure, what = KINDS[done.kind].figure, KINDS[done.kind].done
            print(f"sabotage {done.kind}: {noticed} as {figure}: {what}: {done.about}")
        return sum(self.outcomes.values(), Figures())

    async def _group(self, group: list[Scenario], share: float) -> None:
        """Scenarios on one installation; a group of one, but in the short matrix."""
        folder = self.folder / group[0].name
        first = self.outcomes[group[0].name] = Figures()
        print(f"{', '.join(s.name for s in group)}: starting an installation", flush=True)
        ticker = Ticker("starting", lambda: "")
        needs = reduce(or_, (s.needs for s in group))
        installation = Installation(folder, first, needs=needs)
        try:
            await installation.open()
        except Exception as e:
            first.lose(f"the installation did not start: {e}")
            await installation.close()
            return
        finally:
            ticker.stop()
        watch = Watch(installation.stack.direct.kafka_bootstrap)
        watch.start()
        others: set[str] = set()
        strangers: list[str] = []
        rubbish = Rubbish()
        try:
            for scenario in group:
                if self.interrupted:
                    break
                await self._scenario(
                    scenario, installation, watch, others, strangers, rubbish, share
                )
        finally:
            await watch.close()
            await installation.close()
        if all(self.outcomes[s.name].good for s in group):
            # logs are for whoever looks for the cause of a violation; topics and objects are large
            shutil.rmtree(folder / "stack", ignore_errors=True)

    async def _scenario(
        self, scenario: Scenario, installation: Installation, watch: Watch, others: set[str],
        strangers: list[str], rubbish: Rubbish, share: float,
    ) -> None:  # fmt: skip
        name = scenario.name
        # the first of a group has been counted in since its installation was started
        figures = self.outcomes.setdefault(name, Figures())
        oracle = Oracle(self.folder / name / "journal.jsonl")
        installation.figures, installation.note = figures, oracle.note
        watch.on_completed = oracle.completed
        self.receiver.note = _noting(oracle)
        self.receiver.behave(Mode.OK)
        feeder = Feeder(
            installation, oracle, figures, watch,
            seed=self.seed, first=scenario.number * NUMBERS, webhook_url=self.receiver.url,
        )  # fmt: skip
        print(f"{name}: {scenario.about}", flush=True)
        course = self.courses[name] = [(time.time(), 0)]
        done_before = watch.count(topics.IMAGED)

        def told() -> str:
            done = watch.count(topics.IMAGED) - done_before
            course.append((time.time(), done))
            return f"{figures.line()} images={done}/{figures.images}"

        ticker = Ticker(name, told)
        world = World(
            installation, feeder, oracle, self.receiver, figures, watch,
            rng=random.Random(f"{self.seed}/{name}"), short=self.short,
            until=time.monotonic() + share, say=ticker.say, strangers=strangers,
            rubbish=rubbish, scale=min(1.0, self.duration / FULL_S),
            posted_before=self._posted,
        )  # fmt: skip
        limit = _SHORT_S if self.short else share + _OVERTIME_S
        try:
            async with asyncio.timeout(limit) as timer:
                await installation.scale(scenario.needs.workers)
                self._trouble = asyncio.ensure_future(scenario.run(world))
                await self._trouble
                if self.sabotage:
                    self.harms += [(name, h) for h in await harm(world, self.sabotage)]
        except TimeoutError as e:
            late = f"did not end within {limit:.0f} s"
            figures.lose(f"{name} {late if timer.expired() else f'waited in vain: {e}'}")
        except asyncio.CancelledError:
            if not self.interrupted:
                raise
            figures.notes.append("interrupted: what was submitted by then is judged")
            # half a submission is nobody's job
            others.update(oracle.plans.keys() - oracle.acknowledged)
        except Exception as e:
            figures.lose(f"{name} broke off: {type(e).__name__}: {e}")
            traceback.print_exc()
        self.receiver.behave(Mode.OK)
        try:
            ticker.say("verifying")
            self._digests[name] = await verify(world, others)
        except Exception as e:
            figures.lose(f"{name} could not be verified: {type(e).__name__}: {e}")
            traceback.print_exc()
        judged = world.posted_judged
        self._posted = len(self.receiver.deliveries) if judged is None else judged
        if not world.comparable:
            self._digests.pop(name, None)
        await feeder.close()
        oracle.close()
        figures.seconds = ticker.stop()
        if exits := figures.ended_by_themselves():
            print(f"{name}: {exits}")
        self.plans[name] = {j: oracle.plans[j] for j in oracle.acknowledged}
        others.update(oracle.plans)
        print(f"{name}: {figures.seconds:.0f} s, {figures.images} images, {figures.line()}")
        _show(figures)

    async def _compare(self) -> None:
        plans = {j: p for name in self._digests for j, p in self.plans[name].items()}
        if not plans:
            return
        print(f"calm reference: {len(plans)} jobs, undisturbed", flush=True)
        ticker = Ticker("calm", lambda: "")
        self.receiver.note = None
        try:
            calm = await calm_digests(self.folder / "calm", plans, self.receiver.url, ticker.say)
        except Exception as e:
            told = f"the calm run broke off: {type(e).__name__}: {e}"
            next(iter(self.outcomes.values())).lose(told)
            traceback.print_exc()
            return
        finally:
            print(f"calm reference: {ticker.stop():.0f} s", flush=True)
        for name, stormy in self._digests.items():
            figures = self.outcomes[name]
            before = len(figures.details)
            compare(figures, self.plans[name], stormy, calm)
            if len(figures.details) > before:
                print(f"{name}, compared with a calm run:")
                _show(figures, before)


def _noting(oracle: Oracle) -> Callable[[Delivery], None]:
    def note(got: Delivery) -> None:
        oracle.posted(job_id=got.job_id, id=got.webhook_id, body=got.body, answered=got.answered)

    return note


def _show(figures: Figures, start: int = 0) -> None:
    shown = figures.details[start : start + _SHOWN]
    for line in shown:
        print(f"    {line}")
    if len(figures.details) - start > len(shown):
        print(f"    and {len(figures.details) - start - len(shown)} more")
    sys.stdout.flush()


def _grouped(scenarios: list[Scenario], short: bool) -> list[list[Scenario]]:
    """In the short matrix, scenarios share an installation that is all they need."""
    if not short:
        return [[s] for s in scenarios]
    groups: list[list[Scenario]] = []
    # the last: it leaves a broker that has forgotten what was there before
    for scenario in sorted(scenarios, key=lambda s: s.name == "derived"):
        for group in groups:
            if all(s.needs.fits(scenario.needs) for s in group):
                group.append(scenario)
                break
        else:
            groups.append([scenario])
    return groups
