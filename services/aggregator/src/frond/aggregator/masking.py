"""An image of a segmentation model: its chunks' windows become a class raster and polygons.

Everything goes over files, in a child process that may be killed: however large the image, and
whatever its making does to memory or time, this process and the images beside it go on.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from frond.aggregator import metrics, room
from frond.artifacts import COG_TYPE
from frond.contracts import keys
from frond.contracts.errors import RasterRejected, StoreUnavailable
from frond.contracts.ids import chunk_id
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.masks.build import Built, build
from frond.masks.table import Polygons, from_ipc
from frond.raster.sandbox import ReaderFailed, Sandbox
from frond.runtime import clear_folders, folder_on_disk
from frond.store import ObjectStore

Build = Callable[[Path, ImagePlan, ModelManifest], Built]

ARROW_TYPE: Final = "application/vnd.apache.arrow.file"
_FOLDER: Final = "masks"
_READS: Final = 4
_NO_ROOM: Final = 16 << 20
"""Bytes: with fewer left, a failure is the disk's."""
_HELP: Final = "Cut the image into parts, or ask whoever runs this installation to raise"


class Masking:
    """Makes masks. Safe to run twice, at once, and beside a zombie.

    Attributes:
        slots: to be held by whoever makes masks and writes what they give.

    Args:
        scratch: where an image's files lie while they are made, each in a folder of its own; what
            processes that are no more have left there is removed. None: the system's.
        at_once: how many images, each in a child process.
        timeout_s: how long one image may take.
        memory_mb: what a child may allocate; 0: as much as there is.
    """

    def __init__(
        self,
        store: ObjectStore,
        scratch: Path | None = None,
        *,
        at_once: int = 1,
        timeout_s: float = 1800.0,
        memory_mb: int = 4096,
        build: Build = build,
    ) -> None:
        self.slots = asyncio.Semaphore(at_once)
        self._store = store
        self._scratch = scratch or Path(tempfile.gettempdir())
        clear_folders(self._scratch, _FOLDER)
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._build = build
        self._children = Sandbox(
            at_once, memory_mb=memory_mb, lost=lambda why: metrics.MASKERS_LOST.labels(why).inc()
        )

    async def make(self, plan: ImagePlan, manifest: ModelManifest) -> Polygons:
        """Write an image's class raster and its polygons from its chunks; returns the polygons.

        Raises:
            ObjectMissing: a chunk is not there.
            RasterRejected: MASKS_FAILED, it takes more time, memory or disk than it may, or kills
                its process again and again; or as :func:`frond.masks.build.build` says.
            StoreUnavailable: the store is away, or the disk has no room just now.
        """
        with room.needed_for("masks"):
            return await self._make(plan, manifest)

    async def _make(self, plan: ImagePlan, manifest: ModelManifest) -> Polygons:
        held = ExitStack()
        of_image = folder_on_disk(self._scratch, _FOLDER)
        folder = await asyncio.to_thread(held.enter_context, of_image)
        try:
            await self._fetch(plan, folder)
            built = await self._built(plan, manifest, folder)
            _, polygons = await asyncio.gather(
                self._store.put_file(
                    keys.image_classes(plan.job_id, plan.image_id), built.classes, COG_TYPE
                ),
                self._polygons(plan, built.polygons),
            )
            return polygons
        finally:
            await asyncio.to_thread(held.close)

    async def _require_room(self, plan: ImagePlan, folder: Path) -> None:
        """Raises RasterRejected where this disk could never hold the chunks, StoreUnavailable where it
        cannot now."""
        prefix = keys.chunks_prefix(plan.job_id, plan.image_id)
        needed = sum([found.size async for found in self._store.list(prefix)])
        disk = shutil.disk_usage(folder)
        if needed > disk.total:
            raise RasterRejected(
                Reason.MASKS_FAILED,
                f"Making the class map of the image takes {_mib(needed)} of disk, and there are "
                f"{_mib(disk.total)}. Cut the image into parts, or ask whoever runs this "
                "installation for a larger disk under FROND_CACHE_DIR.",
            )
        if needed > disk.free:
            raise StoreUnavailable(
                f"no room for masks in {folder.parent}: they take {_mib(needed)}, and "
                f"{_mib(disk.free)} are free"
            )

    async def _fetch(self, plan: ImagePlan, folder: Path) -> None:
        await self._require_room(plan, folder)
        digest = plan.plan_digest
        left = iter(range(plan.chunks))

        async def some() -> None:
            for ordinal in left:
                chunk = chunk_id(plan.image_id, digest, ordinal)
                key = keys.chunk_result(plan.job_id, plan.image_id, chunk)
                await self._store.get_file(key, folder / f"{chunk}.arrow")

        # what is still being written when the folder goes would bring it back
        for error in await asyncio.gather(*(some() for _ in range(_READS)), return_exceptions=True):
            if error is not None:
                raise error

    async def _built(self, plan: ImagePlan, manifest: ModelManifest, folder: Path) -> Built:
        try:
            return await self._children.run(
                _built, (self._build, folder, plan, manifest), self._timeout_s,
                # a child may still write while its caller, cancelled, clears away
                abandoned=lambda: shutil.rmtree(folder, ignore_errors=True),
            )  # fmt: skip
        except RasterRejected as e:
            raise self._in_words(e) from None
        except ReaderFailed as e:
            # as GDAL and Python tell of it, each in its own way
            if shutil.disk_usage(folder).free < _NO_ROOM:
                raise StoreUnavailable(f"no room for masks in {folder.parent}") from e
            raise

    def _in_words(self, e: RasterRejected) -> RasterRejected:
        """The sandbox speaks of rasters that are read; here one is made."""
        match e.reason:
            case Reason.READ_TIMEOUT:
                why = (
                    f"Making the class map of the image took longer than {self._timeout_s:g} s. "
                    f"{_HELP} FROND_MASKS_TIMEOUT_S."
                )
            case Reason.TOO_LARGE:
                why = (
                    "Making the class map of the image takes more memory than one process may "
                    f"have ({self._memory_mb} MiB). {_HELP} FROND_MASKS_MEMORY_MB."
                )
            case Reason.READER_DIED | Reason.UNAVAILABLE:
                why = (
                    "The process that makes the image's class map ended again and again, most likely "
                    "because the machine had no memory left. Cut the image into parts, or send it "
                    "again when the machine has less to do."
                )
            case _:
                return e
        return RasterRejected(Reason.MASKS_FAILED, why)

    async def _polygons(self, plan: ImagePlan, path: Path) -> Polygons:
        key = keys.image_polygons(plan.job_id, plan.image_id)
        await self._store.put_file(key, path, ARROW_TYPE)
        return (await asyncio.to_thread(lambda: from_ipc(path.read_bytes())))[0]

    def close(self) -> None:
        """End the children, whatever they are doing."""
        self._children.close()


def _built(asked: tuple[Build, Path, ImagePlan, ModelManifest]) -> Built:
    """What a child does: one function for all images, which it is told of once."""
    build, folder, plan, manifest = asked
    return build(folder, plan, manifest)


def _mib(size: int) -> str:
    return f"{-(-size >> 20):,} MiB"
