"""Models that servers run, as the registry's door shows them."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.testclient import TestClient

from frond.auth import Principal, Scope
from frond.contracts.modelspec import DecoderSpec, InputSpec, ModelManifest, ServerSpec
from frond.ingest.routes.models import ModelVersion, told_of

MANIFEST = ModelManifest(
    name="roofs",
    decoder=DecoderSpec(name="yolo"),
    classes=("roof",),
    input=InputSpec(size=256),
    server=ServerSpec(url="http://triton.inside:8000", model="roofs", version="3"),
)


def test_where_a_model_runs_is_for_admins() -> None:
    """Others read what it is, and no address inside the installation."""
    reader = Principal("key:r", "t", frozenset({Scope.READ}))
    admin = Principal("key:a", None, frozenset({Scope.ADMIN}))
    app = FastAPI()

    @app.get("/{who}", response_model=ModelVersion)
    def show(who: str) -> ModelVersion:
        manifest = told_of(MANIFEST, admin if who == "admin" else reader)
        return ModelVersion(name="roofs", digest="0" * 64, manifest=manifest, files={})

    client = TestClient(app)
    assert "triton.inside" in client.get("/admin").text
    shown = client.get("/reader")
    assert shown.status_code == 200
    assert "triton" not in shown.text
    assert shown.json()["manifest"]["server"] == {
        "url": "", "model": "roofs", "version": "3", "timeout_s": 30.0, "binary": None,
    }  # fmt: skip
    plain = MANIFEST.model_copy(update={"server": None})
    assert told_of(plain, reader) is plain
