"""What a reader process does: one raster in, its plan out. Knows no Kafka and no MinIO client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from frond.contracts.errors import ModelRejected, RasterRejected, StoreUnavailable
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import (
    PlanRequest,
    RasterInfo,
    choose_bands,
    inspect,
    is_slow,
    lacks_scale,
    make_tiled,
    open_raster,
    plan_image,
)
from frond.raster.child import more_time
from frond.raster.slow import free_bytes, total_bytes

if TYPE_CHECKING:
    from frond.models import WindowDetections
    from frond.models.session import ModelSession

_SPARE_BYTES = 1 << 30
# of pixels: to look for nodata, or to decode and compress a copy, on a busy core
_BYTES_A_SECOND = 10e6
# a header may tell of anything; what is truly so large is a large file, too
_MOST_S = 1800.0
# for a model to look at a window, on a busy core; and to be loaded, with what runs it
_WINDOW_S: Final = 10.0
_LOAD_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Task:
    """One raster to plan.

    Attributes:
        path: s3:// address or local path to read now; the plan names ``request.uri``.
        head: the first bytes; None for a copy that we made.
        copy_to: where to put a tiled copy if windows would be slow to read; None: plan as it is.
        model: the model's folder, to estimate a scale with; None: ask for it if it is needed.
        not_asked: why no scale is to be estimated; None: one may be.
    """

    request: PlanRequest
    path: str
    head: bytes | None
    copy_to: Path | None
    model: Path | None = None
    not_asked: str | None = None


@dataclass(frozen=True, slots=True)
class Copied:
    """A tiled copy was made; it has to be uploaded, then planned."""

    path: Path


@dataclass(frozen=True, slots=True)
class ModelNeeded:
    """The raster does not say its scale: it has to be planned with the model's folder at hand."""


def plan_raster(task: Task) -> ImagePlan | Copied | ModelNeeded:
    """Plan a raster, or make the tiled copy that is to be planned instead, or ask for the model.

    Raises:
        RasterRejected: it cannot be processed.
        StoreUnavailable: the store did not answer, or the disk has no room for a copy just now.
    """
    request = task.request
    with open_raster(task.path, head=task.head, size=request.size) as dataset:
        info = inspect(dataset, request.size, request.limits)
        needed = info.pixels * info.count * info.itemsize / _BYTES_A_SECOND
        more_time(min(needed, _MOST_S + request.size / 1e6))
        if task.copy_to is not None and is_slow(info):
            choose_bands(info, request.manifest.bands)
            _need_room(info, task.copy_to.parent)
            _session.cache_clear()
            make_tiled(dataset, info, task.copy_to)
            return Copied(task.copy_to)
        lacking, why = lacks_scale(info, request), task.not_asked
        if lacking and why is None:
            if task.model is None:
                return ModelNeeded()
            try:
                return plan_image(dataset, info, request, _Looking(_session(task.model)))
            except ModelRejected as e:
                # what is wrong with the model, inference says of the chunks
                why = e.detail
        # what a raster may have of this reader's memory must not depend on those before it
        _session.cache_clear()
        plan = plan_image(dataset, info, request)
        if not lacking:
            return plan
        note = f"the model could not be asked for the scale: {why}"
        return plan.model_copy(update={"notes": (*plan.notes, note)})


class _Looking:
    """The model, which may take its time with each window."""

    def __init__(self, session: ModelSession) -> None:
        self.layout = session.layout
        self._session = session

    def detect(self, windows: Sequence[NDArray[Any]]) -> list[WindowDetections]:
        more_time(_WINDOW_S * len(windows))
        return self._session.detect(windows)


@lru_cache(maxsize=1)
def _session(folder: Path) -> ModelSession:
    more_time(_LOAD_S)
    # most readers never need ONNX Runtime
    from frond.models.session import ModelSession

    # one thread: readers share the cores, and sums have one order
    return ModelSession(folder, providers=("CPUExecutionProvider",), threads=1, batch=1)


def _need_room(info: RasterInfo, folder: Path) -> None:
    needed = info.pixels * info.count * info.itemsize + _SPARE_BYTES
    if free_bytes(folder) >= needed:
        return
    # what happens to be free just now must not decide what becomes of an image
    if total_bytes(folder) >= needed:
        raise StoreUnavailable(
            f"no room for a tiled copy: it may need {needed >> 20} MiB in {folder.parent}"
        )
    raise RasterRejected(
        Reason.TOO_LARGE,
        "Parts of this image cannot be read by themselves, and there is no room to make a "
        "tiled copy. Send it tiled, for example after gdal_translate -of COG.",
    )
