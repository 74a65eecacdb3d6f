"""What tests of models that servers run have in common; makes what lies beside the tests importable
(pytest imports by path)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from frond.models.testing import blob_model
from frond.models.testing_server import ModelServer, model_server

sys.path.insert(0, str(Path(__file__).parent))

from remote_bench import SIZE  # importable from here on


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return blob_model(tmp_path / "local", size=SIZE, margin=8)


@pytest.fixture
def server(local: Path) -> Iterator[ModelServer]:
    with model_server(local) as made:
        yield made
