"""What ``frond models compare`` leaves on disk; its figures are held in tests/integration/test_shadow.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from frond.client.comparing import compare
from frond.client.errors import FrondClientError


def service(completed: int, told: int = 0) -> Any:
    """A service of a job that ended with so many images, and tells of so many as completed."""
    ref = {"name": "palms", "version": "1", "digest": "a" * 64}
    manifest = {"task": "detection", "classes": ["palm"], "thresholds": {"score": 0.4}}
    job = {
        "status": "successful", "finished": True, "model": ref, "images": {"completed": completed},
        "shadow": {"model": ref, "share": 0.5},
    }  # fmt: skip
    ids = [{"image_id": f"{n:032x}", "status": "completed"} for n in range(max(completed, told))]
    return SimpleNamespace(
        status=lambda job_id: job,
        images=lambda job_id, status: iter(ids[:told]),
        summary=lambda job_id: {
            "images": [*ids[:completed], {"image_id": "f", "status": "failed"}]
        },
        registry=SimpleNamespace(version=lambda ref: {"manifest": manifest}),
    )


def test_what_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    """Neither a half one nor a `.part`; a file from before stays."""
    out = tmp_path / "diff.geojson"
    with pytest.raises(FrondClientError, match="Try again"):
        compare(service(completed=1), "j", out)
    assert list(tmp_path.iterdir()) == []
    out.write_text("from before")
    with pytest.raises(FrondClientError, match="Try again"):
        compare(service(completed=1), "j", out)
    assert out.read_text() == "from before" and list(tmp_path.iterdir()) == [out]


def test_what_is_whole_takes_its_name(tmp_path: Path) -> None:
    """Alone in its folder, over a file from before."""
    out = tmp_path / "diff.geojson"
    out.write_text("from before")
    compare(service(completed=0), "j", out)
    assert json.loads(out.read_text())["frond"]["job_id"] == "j"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("told", [2, 3])
def test_images_beyond_a_jobs_size_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    """They are worked on, and are none of its results; they do not stand for one that is not told of
    yet, either."""
    plan = SimpleNamespace(thresholds=SimpleNamespace(score=None))
    monkeypatch.setattr("frond.client.comparing._plan", lambda *_: plan)
    monkeypatch.setattr("frond.client.comparing._chunks", lambda *_: iter(()))
    assert compare(service(completed=2, told=told), "j")["images"] == 2
    late = service(completed=2, told=3)
    late.images = lambda job_id, status: iter([{"image_id": f"{n:032x}"} for n in (1, 2)])
    with pytest.raises(FrondClientError, match="with 2 images, and the service tells of 1 so far"):
        compare(late, "j")
