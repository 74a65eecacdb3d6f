"""The running HTTP doors under schemathesis: every operation of their OpenAPI documents, with
requests that fit them, with requests that do not, and with sequences of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.services import Services

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = os.environ.get("FROND_SCHEMATHESIS_EXAMPLES", "12")


@pytest.mark.parametrize("door", ["ingest", "inference"])
def test_every_operation_keeps_its_word(frond: Services, tmp_path: Path, door: str) -> None:
    """No server error; status, media type, headers and body are those of the document; what breaks
    the schema is refused; nothing is given out without a key; what was deleted is gone."""
    if door == "inference":
        # the first one starts a process that reads images
        warm = httpx.post(
            frond.url(door) + "/predict", headers={"Authorization": "Bearer test-key"}, timeout=120
        )
        assert warm.status_code == 422, warm.text
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run",
        frond.url(door) + "/openapi.json",
        "--header", "Authorization: Bearer test-key",
        "--max-examples", EXAMPLES, "--seed", "7", "--request-timeout", "30",
        # a stream of a job that runs does not end; test_ingest_rest follows one
        "--exclude-path-regex", "/events$",
        "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
