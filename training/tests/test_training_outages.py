"""A registry that does not answer for a while: nothing that was trained is lost to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from training_support import SMALL

from frond.contracts.errors import StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.models.testing import blob_model
from frond.training import cli, publish, run
from frond.training.worker import deciding

REF = ModelRef(name="m", digest="ab" * 32, version="1")


class Away:
    """A store and its registry that do not answer the first few times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.closed = False

    def _ask(self) -> None:
        if self.left:
            self.left -= 1
            raise StoreUnavailable("looking at models/: connection refused")

    async def exists(self, _: str) -> bool:
        self._ask()
        return True

    async def push(self, *_: object, **__: object) -> ModelRef:
        self._ask()
        return REF

    def close(self) -> None:
        self.closed = True


def away(monkeypatch: pytest.MonkeyPatch, times: int) -> Away:
    store = Away(times)
    monkeypatch.setattr(publish, "open_store", lambda: store)
    monkeypatch.setattr(publish, "Registry", lambda _: store)
    monkeypatch.setattr(publish, "_FIRST_S", 0.001)
    return store


def test_a_blink_is_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before training and at the push; it is told once."""
    blob_model(tmp_path / "m")
    store = away(monkeypatch, 4)
    publish.ready("staging")
    assert not store.left and store.closed
    assert capsys.readouterr().err.count("does not answer") == 1
    store = away(monkeypatch, 4)
    assert publish.push(tmp_path / "m", "staging", why="") == REF
    assert not store.left and store.closed


def test_an_outage_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the outage, which is no failure: who asked before training is told within seconds."""
    assert publish._READY_S <= 10 < 60 <= publish._PUSH_S
    blob_model(tmp_path / "m")
    for name in ("_READY_S", "_PUSH_S"):
        monkeypatch.setattr(publish, name, 0.05)
    store = away(monkeypatch, 1000)
    with pytest.raises(StoreUnavailable):
        publish.ready("staging")
    with pytest.raises(StoreUnavailable):
        publish.push(tmp_path / "m", "staging", why="")
    assert 0 < store.left < 1000 and store.closed


def test_an_outage_has_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that a worker answers by going on later; the sentence says how a person does."""
    pytest.importorskip("torch", reason="training's own environment has it: make train-test")

    def full(*_: object, **__: object) -> None:
        raise StoreUnavailable("looking at models/: connection refused")

    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SMALL))
    monkeypatch.setattr(run, "full", full)
    code = cli.app(["palm", "--config", str(tmp_path / "c.yaml")], standalone_mode=False)
    told = capsys.readouterr()
    assert code == deciding.AWAY
    assert "--resume" in told.err and "connection refused" in told.err
    assert not told.out
