"""What ran when processes died: found by those that come after, and run alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_bench import Bench

from frond.contracts.errors import ModelRejected
from frond.contracts.events import ChunkPlanned
from frond.contracts.reasons import Reason
from frond.inference import deaths
from frond.inference.deaths import MOST_ALONE, Deaths, Trial
from frond.inference.turns import Room
from frond.models.session import ModelSession
from support.waiting import until

# one process after the other runs some chunks, and is killed or ends of itself
_LIVES = """
import json, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from frond.inference.deaths import Deaths, Trial
for life in json.loads(sys.argv[2]):
    if not (child := os.fork()):
        deaths = Deaths(Path(sys.argv[1]))
        for job, chunk, trial in life["runs"]:
            # a chunk "a1" is of the image "a"
            event = SimpleNamespace(job_id=job, image_id=chunk[0] * 32, chunk_id=chunk)
            deaths.begin(event, Trial(trial))
        if life.get("killed", True):
            os.kill(os.getpid(), signal.SIGKILL)
        deaths.close()
        os._exit(0)
    os.waitpid(child, 0)
"""


def live(folder: Path, *lives: list[tuple[str, str, Trial]], killed: bool = True) -> None:
    told = [{"runs": [(j, c, t.value) for j, c, t in runs], "killed": killed} for runs in lives]
    subprocess.run([sys.executable, "-c", _LIVES, str(folder), json.dumps(told)], check=True)


def of(job: str, chunk: str) -> Any:
    return ChunkPlanned.model_construct(job_id=job, image_id=chunk[0] * 32, chunk_id=chunk)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deaths"


def test_what_ran_at_a_death_runs_alone(folder: Path) -> None:
    """And nothing else does: neither the job's other chunks, nor what had ended before."""
    live(folder, [("j", "a", Trial.BESIDE), ("k", "b", Trial.BESIDE)])
    after = Deaths(folder)
    assert after.trial(of("j", "a")) is Trial.ALONE
    assert after.trial(of("k", "b")) is Trial.ALONE
    assert after.trial(of("j", "b")) is Trial.BESIDE
    after.begin(of("j", "b"), Trial.BESIDE).end()
    after.close()
    assert Deaths(folder).trial(of("j", "b")) is Trial.BESIDE


def test_who_ends_of_itself_accuses_nobody(folder: Path) -> None:
    """Also with chunks that had not ended: they are given to another worker."""
    live(folder, [("j", "a", Trial.BESIDE)], killed=False)
    assert Deaths(folder).trial(of("j", "a")) is Trial.BESIDE


def test_who_lives_accuses_nobody(folder: Path) -> None:
    """A worker that begins beside another one on the same disk leaves alone what that one runs."""
    first = Deaths(folder)
    first.begin(of("j", "a"), Trial.BESIDE)
    second = Deaths(folder)
    assert second.trial(of("j", "a")) is Trial.BESIDE
    third = Deaths(folder)
    assert third.trial(of("j", "a")) is Trial.BESIDE


def test_a_chunk_at_which_processes_die_is_given_up(folder: Path) -> None:
    """After so many deaths beside nothing else, and with it its image's others: the image has failed,
    and each of hundreds of chunks would cost as many deaths. No other image is."""
    live(folder, *[[("j", "a", Trial.ALONE)]] * (MOST_ALONE - 1), [("j", "a2", Trial.ALONE)])
    before = Deaths(folder)
    assert before.trial(of("j", "a")) is Trial.ALONE
    assert before.trial(of("j", "a2")) is Trial.ALONE
    assert before.trial(of("j", "a3")) is Trial.BESIDE
    live(folder, [("j", "a", Trial.ALONE)])
    now = Deaths(folder)
    assert {now.trial(of("j", c)) for c in ("a", "a2", "a3")} == {Trial.NONE}
    assert now.trial(of("j", "b")) is Trial.BESIDE
    assert now.trial(of("k", "a")) is Trial.BESIDE


def test_whoever_dies_alone_clears_those_that_were_beside_it(folder: Path) -> None:
    """Of its job and of others: the deaths at which they were there are explained."""
    together = [(job, chunk, Trial.BESIDE) for job, chunk in (("j", "a"), ("j", "b"), ("k", "c"))]
    live(folder, *[together] * 3)
    assert {Deaths(folder).trial(of(j, c)) for j, c in (("j", "b"), ("k", "c"), ("k", "z"))} == {
        Trial.ALONE
    }
    live(folder, [("j", "a", Trial.ALONE)])
    now = Deaths(folder)
    assert now.trial(of("j", "a")) is Trial.ALONE
    assert {now.trial(of(j, c)) for j, c in (("k", "c"), ("k", "z"))} == {Trial.BESIDE}
    # the job that has a killer among its chunks is watched still
    assert now.trial(of("j", "b")) is Trial.ALONE


def test_a_job_none_of_whose_chunks_comes_through_is_given_up(folder: Path) -> None:
    """A model that needs more memory than there is kills at every chunk: not so many times for each."""
    live(folder, *[[("j", "a", Trial.ALONE)]] * MOST_ALONE, [("j", "b", Trial.ALONE)])
    now = Deaths(folder)
    assert now.trial(of("j", "c")) is Trial.NONE
    assert now.trial(of("k", "c")) is Trial.BESIDE


def test_a_job_of_which_something_came_through_goes_on(folder: Path) -> None:
    """However often processes died at two of its chunks."""
    before = Deaths(folder)
    before.came_through(of("j", "z"))
    before.close()
    live(folder, *[[("j", c, Trial.ALONE)] for c in "aaaaabbbb"])
    now = Deaths(folder)
    assert now.trial(of("j", "d")) is Trial.BESIDE
    assert now.trial(of("j", "b")) is Trial.ALONE
    assert now.trial(of("j", "a")) is Trial.NONE


def test_one_image_does_not_condemn_its_job(folder: Path) -> None:
    """However many of its chunks kill, and though nothing else has run yet."""
    live(folder, *[[("j", f"a{n}", Trial.ALONE)] for n in (0, 0, 0, 0, 0, 1, 1)])
    now = Deaths(folder)
    assert now.trial(of("j", "a0")) is Trial.NONE
    assert now.trial(of("j", "b")) is Trial.BESIDE


def test_where_chunks_were_given_up_the_next_costs_fewer_deaths(folder: Path) -> None:
    """A job of a thousand bad images does not kill five times for each."""
    Deaths(folder).came_through(of("j", "z"))
    live(folder, *[[("j", c, Trial.ALONE)] for c in "aaaaabbbbbc"])
    now = Deaths(folder)
    assert {now.trial(of("j", c)) for c in ("c", "c2")} == {Trial.NONE}
    assert now.trial(of("j", "d")) is Trial.BESIDE


def test_many_chunks_of_one_image_are_not_many_images(folder: Path) -> None:
    """Workers beside each other may die at two of its chunks before either is given up: another
    image's chunk has all of its trials all the same."""
    Deaths(folder).came_through(of("j", "z"))
    live(
        folder,
        *[[("j", c, Trial.ALONE)] for c in ("a1", "a2") * MOST_ALONE],
        [("j", "b", Trial.ALONE)],
    )
    now = Deaths(folder)
    assert now.trial(of("j", "a3")) is Trial.NONE
    assert now.trial(of("j", "b")) is Trial.ALONE


def test_a_job_that_dies_only_in_company_runs_alone(folder: Path) -> None:
    """Memory that is enough for one chunk at a time: after some deaths all of the job's run so."""
    for n in range(3):
        assert Deaths(folder).trial(of("j", "z")) is Trial.BESIDE
        live(folder, [("j", f"{n}a", Trial.BESIDE), ("j", f"{n}b", Trial.BESIDE)])
    assert Deaths(folder).trial(of("j", "z")) is Trial.ALONE


def test_what_is_long_past_is_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and from the disk when a process begins."""
    live(folder, *[[("j", "a", Trial.ALONE)]] * MOST_ALONE)
    now = Deaths(folder)
    assert now.trial(of("j", "a")) is Trial.NONE
    later = time.time() + deaths._REMEMBERED_S + 60
    monkeypatch.setattr("frond.inference.deaths.time.time", lambda: later)
    assert now.trial(of("j", "a")) is Trial.BESIDE
    now.came_through(of("j", "b"))
    Deaths(folder)
    assert list((folder / "died").iterdir()) == list((folder / "well").iterdir()) == []


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """Nothing is known then, and every chunk is run."""
    blocked = tmp_path / "file"
    blocked.touch()
    blind = Deaths(blocked / "deaths")
    run = blind.begin(of("j", "a"), blind.trial(of("j", "a")))
    assert blind.trial(of("j", "a")) is Trial.BESIDE
    run.end()
    blind.came_through(of("j", "a"))
    blind.close()


@given(job=st.text(max_size=200), chunk=st.text(max_size=200))
def test_any_ids_will_do(tmp_path_factory: pytest.TempPathFactory, job: str, chunk: str) -> None:
    """An id is a name that somebody chose; none leaves the folder, and none is too long."""
    root = tmp_path_factory.mktemp("ids")
    mine = Deaths(root / "deaths")
    event = ChunkPlanned.model_construct(job_id=job, image_id=job, chunk_id=chunk)
    run = mine.begin(event, Trial.BESIDE)
    assert len([*(root / "deaths/running").rglob("*.beside")]) == 1
    run.end()
    assert [*(root / "deaths/running").rglob("*.beside")] == []
    mine.close()
    assert [*root.iterdir()] == [root / "deaths"]


async def test_whoever_is_alone_is() -> None:
    """Nobody enters while it waits or is inside, and all come in the order in which they asked."""
    room, inside, order = Room(), set[int](), list[int]()
    leave = [asyncio.Event() for _ in range(5)]

    async def one(n: int, alone: bool) -> None:
        async with room.alone() if alone else room.beside():
            assert not alone or not inside
            inside.add(n)
            order.append(n)
            await leave[n].wait()
            inside.discard(n)

    tasks = [asyncio.create_task(one(n, n == 2)) for n in range(5)]
    for now, gone in (({0, 1}, 0), ({1}, 1), ({2}, 2), ({3, 4}, 3)):
        for _ in range(20):
            await asyncio.sleep(0)
        assert inside == now
        leave[gone].set()
    leave[4].set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_who_waits_to_be_alone_and_is_stopped_lets_others_in() -> None:
    """The partition is somebody else's now."""
    room = Room()
    async with asyncio.timeout(10), room.beside():
        waiting = asyncio.create_task(_alone(room))
        await asyncio.sleep(0)
        behind = asyncio.create_task(_beside(room))
        await asyncio.sleep(0)
        waiting.cancel()
        await behind


async def _alone(room: Room) -> None:
    async with room.alone():
        pass


async def _beside(room: Room) -> None:
    async with room.beside():
        pass


async def test_the_worker_runs_it_alone_and_in_the_end_tells_of_it(
    local: Path, scene: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that was there at a death has the process to itself, one at which five died has its
    reason; what comes through is as ever."""
    session = ModelSession(local, threads=1)
    live(folder, [("j", "1" * 32, Trial.BESIDE)])
    live(folder, *[[("j", "2" * 32, Trial.ALONE)]] * MOST_ALONE)
    image = {n: {"image_id": n * 32, "chunk_id": n * 32} for n in "12345"}
    with ExitStack() as stack:
        known = Deaths(folder)
        stack.callback(known.close)
        bench = Bench(scene, tmp_path, local, deaths=known)
        stack.callback(bench.close)
        plain = bench.chunk(local, session)
        going, most = set[str](), dict[str, int]()
        get = bench.models.get

        async def watched(ref: Any) -> ModelSession:
            me = str(id(asyncio.current_task()))
            going.add(me)
            for one in going:
                most[one] = max(most.get(one, 0), len(going))
            found = await get(ref)
            for _ in range(20):
                await asyncio.sleep(0)
            going.discard(me)
            return found

        monkeypatch.setattr(bench.models, "get", watched)
        told = await asyncio.gather(
            *(bench.worker.handle(plain.model_copy(update=image[n])) for n in "31425")
        )
    assert {t.chunk_id[0]: t.reason for t in told if t.reason} == {"2": Reason.INFERENCE_FAILED}
    assert "FROND_BATCH" in next(t.detail for t in told if t.reason)
    assert sorted(most.values()) == [1, 1, 2, 2]


async def test_a_run_that_nobody_waits_for_is_still_said_to_run(
    local: Path, scene: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partition is somebody else's, and the thread goes on: it may yet end the process, and
    nobody is alone beside it."""
    session = ModelSession(local, threads=1)
    live(folder, [("j", "2" * 32, Trial.BESIDE)])
    begun, may_end = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        begun.set()
        assert may_end.wait(60)
        raise ModelRejected(Reason.INFERENCE_FAILED, "nobody hears of it")

    known = Deaths(folder)
    bench = Bench(scene, tmp_path, local, deaths=known)
    plain = bench.chunk(local, session)
    running = folder / "running"
    with monkeypatch.context() as patched:
        patched.setattr("frond.inference.worker.run", slow)
        first = asyncio.create_task(
            bench.worker.handle(
                plain.model_copy(update={"image_id": "1" * 32, "chunk_id": "1" * 32})
            )
        )
        await asyncio.to_thread(begun.wait, 60)
    first.cancel()
    await asyncio.wait({first})
    assert len([*running.glob("*/*.beside")]) == 1
    alone = asyncio.create_task(
        bench.worker.handle(plain.model_copy(update={"image_id": "2" * 32, "chunk_id": "2" * 32}))
    )
    await asyncio.to_thread(until, bench.worker._room._door.locked, 60)
    assert not alone.done()
    may_end.set()
    assert (await asyncio.wait_for(alone, 60)).reason is None
    assert [*running.glob("*/*.*ide")] == [*running.glob("*/*.alone")] == []
    bench.close()
    known.close()
