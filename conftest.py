"""Fixtures for every test: one real Kafka and MinIO a session, names of its own for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from frond.stack import Endpoints, NativeStack
from frond.stack import testing as stack_testing
from frond.stack.keeper import shared_endpoints, stop_shared

ROOT = Path(__file__).parent
_XDIST_ID = "PYTEST_XDIST_TESTRUNUID"
_HOME = pytest.StashKey[Path]()

# speed is judged in bench/: how long an example takes on a busy machine fails no law
settings.register_profile("frond", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("frond")


def _session_home(config: pytest.Config) -> tuple[Path, int]:
    """The folder that all processes of this pytest session share, and the session's process."""
    worker = getattr(config, "workerinput", None)
    owner = os.getppid() if worker else os.getpid()
    name = worker["testrunuid"] if worker else f"p{owner}"
    if not worker and _HOME in config.stash:
        return config.stash[_HOME], owner
    return Path(tempfile.gettempdir()) / f"frond-tests-{os.getuid()}-{name}", owner


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The process that stands for the session ends the shared stack, if one was started."""
    if hasattr(session.config, "workerinput"):
        return
    home, _ = _session_home(session.config)
    manager = session.config.pluginmanager.getplugin("dsession")
    if manager is not None:
        uid = manager.nodemanager.testrunuid
        home = Path(tempfile.gettempdir()) / f"frond-tests-{os.getuid()}-{uid}"
    stop_shared(home)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Endpoints:
    """Where the session's Kafka and MinIO answer; started when the first test asks.

    ``FROND_TEST_STACK`` may name a file with the endpoints of one that runs already.
    """
    given = os.environ.get("FROND_TEST_STACK")
    if given:
        return Endpoints.load(Path(given))
    home, owner = _session_home(request.config)
    return shared_endpoints(home, owner)


@pytest.fixture
def topic_prefix(stack: Endpoints) -> Iterator[str]:
    """A prefix for topic names that is this test's alone; its topics are deleted afterwards."""
    prefix = stack_testing.new_prefix()
    yield prefix
    stack_testing.delete_topics(stack.kafka_bootstrap, prefix)


@pytest.fixture
def bucket(stack: Endpoints) -> Iterator[str]:
    """A bucket that is this test's alone, emptied and removed afterwards."""
    with stack_testing.fresh_bucket(stack) as name:
        yield name


@pytest.fixture
def service_env(stack: Endpoints, topic_prefix: str, bucket: str, tmp_path: Path) -> dict[str, str]:
    """The whole environment for a service started as a process against this test's names."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FROND_")}
    return {
        **inherited,
        **stack_testing.environment(stack, topic_prefix, bucket),
        "FROND_CACHE_DIR": str(tmp_path / "cache"),
        "DATABASE_PATH": str(tmp_path / "frond.sqlite"),
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def private_stack(tmp_path: Path) -> Iterator[NativeStack]:
    """A Kafka and MinIO of this test's own, which it may kill and start again."""
    with NativeStack(tmp_path / "stack") as mine:
        yield mine


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real imagery and real rasters (``FROND_SHARED_DATA``, or beside the checkout)."""
    path = Path(os.environ.get("FROND_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no real imagery at {path}: set FROND_SHARED_DATA to the folder that has it")
    return path
