"""Everything is exchanged during a job, and no client notices."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from frond.client import Client
from frond.models.testing import blob_model
from frond.stack import control
from frond.stack.installation import read_env_file
from support.planted import planted

pytestmark = [pytest.mark.stack, pytest.mark.slow]

IMAGES = 30


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ``.frond`` folder of an installation that runs, with the blob model."""
    home = tmp_path_factory.mktemp("rolling")
    blob_model(home / "models" / "blob")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROND_STACK", "native")
        patch.setenv("FROND_DEFAULT_MODEL", "blob")
        control.up(home / ".frond", home / "models", say=lambda _: None)
        yield home / ".frond"
        control.down(home / ".frond")


class Meanwhile:
    """Something done over and over in a thread of its own, until the end of the block."""

    def __init__(self, do: Callable[[int], Any]) -> None:
        self._do = do
        self._stop = threading.Event()
        self.done = 0
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for n in itertools.count():
            if self._stop.is_set():
                return
            try:
                self._do(n)
                self.done += 1
            except BaseException as e:
                self.errors.append(e)

    def __enter__(self) -> Meanwhile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "it has not come back from what it did last"


def test_all_five_services_are_rolled_during_a_job(state: Path, tmp_path: Path) -> None:
    """Fresh connections without any retry, and a client that uploads, polls and follows: no error
    in any of them; the job that ran meanwhile is whole; each service is another process."""
    env = read_env_file(state / "env")
    url, key = env["FROND_API_URL"], env["FROND_API_KEY"]
    scenes = [planted(f"scene-{i:02d}.tif", i, side=512, count=5) for i in range(IMAGES)]
    for scene in scenes:
        (tmp_path / scene.name).write_bytes(scene.data)
    client = Client(url, key)

    def look(_: int) -> None:
        # a connection of its own each time, and no second try
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(headers=headers, timeout=30, trust_env=False) as http:
            http.get(f"{url}/jobs").raise_for_status()
        time.sleep(0.1)

    def use(n: int) -> None:
        job = client.upload([tmp_path / scenes[n % IMAGES].name], job_id=f"small-{n}")
        client.status(job)
        time.sleep(0.2)

    before = services(state)
    job = client.upload([tmp_path / s.name for s in scenes[:10]], job_id="begun-before")
    lines: list[str] = []
    with (
        ThreadPoolExecutor() as pool,
        Meanwhile(look) as looks,
        Meanwhile(use) as uses,
    ):
        following = pool.submit(lambda: [e.type for e in client.watch(job)])
        during = pool.submit(client.upload, [tmp_path / s.name for s in scenes], "during")
        control.roll(state, say=lines.append)
        assert during.result(200) == "during"
        assert following.result(200)[-1] == "completed"
    assert looks.errors == []
    assert uses.errors == []
    assert looks.done > 50
    assert uses.done > 3
    after = services(state)
    assert set(before) == set(after)
    assert all(after[name]["pid"] != before[name]["pid"] for name in before)
    assert all(one["restarts"] == 0 for one in after.values())
    assert sum("with status 0" in line for line in lines) == 5, lines
    for name, images in (("begun-before", 10), ("during", IMAGES)):
        ended = client.wait(name, timeout=200)
        assert ended["outcome"] == "completed", ended
        assert ended["images"]["completed"] == images
    for n in range(uses.done):
        assert client.wait(f"small-{n}", timeout=200)["outcome"] == "completed"


def test_a_new_process_that_does_not_start_changes_nothing(state: Path, tmp_path: Path) -> None:
    """An upgrade ends at the service that does not start; its old process and all others work on."""
    before = services(state)
    env = read_env_file(state / "env")
    # the next tiler finds its cache to be no folder
    cache = state / "cache"
    cache.rename(state / "cache-aside")
    cache.write_text("")
    try:
        with pytest.raises(Exception, match="go on as they were"):
            control.roll(state, say=lambda _: None)
    finally:
        cache.unlink()
        (state / "cache-aside").rename(cache)
    after = services(state)
    for name in ("tiler", "inference", "aggregator", "notifier"):
        assert after[name]["pid"] == before[name]["pid"]
    scene = planted("one.tif", 1)
    (tmp_path / scene.name).write_bytes(scene.data)
    client = Client(env["FROND_API_URL"], env["FROND_API_KEY"])
    job = client.upload([tmp_path / scene.name])
    assert client.wait(job, timeout=60)["outcome"] == "completed"


def services(state: Path) -> dict[str, Any]:
    found = control.read_state(state)
    assert found is not None
    return {one["name"]: one for one in found["services"]}
