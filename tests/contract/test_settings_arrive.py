"""What an operator sets arrives where it counts: defaults alone would pass every other test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from frond.aggregator.settings import AggregatorSettings
from frond.aggregator.wiring import Aggregator
from frond.inference.settings import InferenceSettings
from frond.inference.wiring import Inference
from frond.ingest.app import make_app
from frond.ingest.context import Ingest
from frond.ingest.settings import IngestSettings
from frond.runtime import Service
from frond.tiler.settings import TilerSettings
from frond.tiler.wiring import readers
from frond.training.worker.settings import TrainingSettings
from frond.training.worker.wiring import when_drifted

Set = Callable[..., None]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Set:
    """Sets FROND_… in the environment, without anything that is there."""
    monkeypatch.setenv("FROND_CACHE_DIR", str(tmp_path))

    def put(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"FROND_{name}", str(value))

    return put


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    """Closes what a test makes."""
    with ExitStack() as held:
        yield held


def test_the_tilers_readers(given: Set, ending: ExitStack) -> None:
    """As many as were asked for, each with its memory."""
    given(TILER_READERS=7, TILER_READER_MEMORY_MB=1357)
    made = ending.enter_context(closing(readers(TilerSettings())))
    assert (made.readers, made._memory_mb) == (7, 1357)


def test_inferences_readers_models_and_patience(given: Set, ending: ExitStack) -> None:
    """Readers of chunks are not those of /predict; a server's silence is borne as long as was said."""
    given(
        INFERENCE_READERS=5, PREDICT_READERS=7, INFERENCE_READER_MEMORY_MB=1357, MODELS_LOADED=11,
        MODEL_PATIENCE_S=13, MAX_DETECTIONS=1234,
    )  # fmt: skip
    made = ending.enter_context(closing(Inference(InferenceSettings())))
    assert (made.readers.readers, made.decoders.readers) == (5, 7)
    assert made.readers._memory_mb == made.decoders._memory_mb == 1357
    assert made.models.capacity == 11
    assert made.worker._patience.seconds == 13
    assert made.worker._max_detections == made.predictor._limits.max_detections == 1234


def test_drifts_bounds_and_periods(given: Set, ending: ExitStack) -> None:
    """Each in its place: two of them are numbers of windows, two are sizes of PSI."""
    given(
        DRIFT_SHARE=0.5, DRIFT_PERIOD_S=77, DRIFT_PERIOD_WINDOWS=88, DRIFT_MIN_WINDOWS=33,
        DRIFT_ALPHA=0.03, DRIFT_PSI_SHIFTING=0.2, DRIFT_PSI_DRIFTED=0.4,
    )  # fmt: skip
    watch = ending.enter_context(closing(Inference(InferenceSettings()))).drifting
    assert watch is not None and watch._share == 0.5
    length, bounds = watch._periods._length, watch._periods._bounds
    assert (length.seconds, length.windows) == (77, 88)
    assert (bounds.shifting, bounds.drifted, bounds.alpha, bounds.windows) == (0.2, 0.4, 0.03, 33)


def test_the_aggregators_slots_and_bounds(given: Set, ending: ExitStack) -> None:
    """Merging and masks each have their own number of places."""
    given(
        MERGE_SLOTS=5, MASKS_AT_ONCE=3, MASKS_TIMEOUT_S=77, MASKS_MEMORY_MB=1357,
        MAX_IMAGE_DETECTIONS=12_345,
    )  # fmt: skip
    made = Aggregator(Service("aggregator", AggregatorSettings()))
    ending.callback(made.store.close)
    masking, imaging = made.masking, made.closing.imaging
    assert (masking.slots._value, masking._timeout_s, masking._memory_mb) == (3, 77, 1357)
    assert (imaging._slots._value, imaging._max_detections) == (5, 12_345)
    assert imaging.masking is masking


def test_when_drift_asks_for_training(given: Set) -> None:
    """After so many periods in succession, and after so long a rest."""
    given(TRAINING_DRIFT_PERIODS=5, TRAINING_REST_S=77)
    policy = when_drifted(TrainingSettings())
    assert (policy.periods, policy.rest) == (5, timedelta(seconds=77))


async def test_a_pushed_models_bytes(given: Set) -> None:
    """A model of more is refused as it comes, before the store is asked anything."""
    given(MAX_MODEL_BYTES=1234, AUTH="off", API_HOST="127.0.0.1")
    made = Ingest(IngestSettings())
    transport = httpx.ASGITransport(make_app(made))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.post("/models", files={"f": ("model.onnx", bytes(1235))})
    await made.close()
    assert (answer.status_code, answer.json()["reason"]) == (413, "too-large"), answer.text
    assert "1234 bytes" in answer.json()["detail"]
