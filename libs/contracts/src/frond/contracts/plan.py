"""A raster's plan: how it is seen, and the grid of windows laid over it.

The grid is arithmetic, never a list: ten million windows cost as much as ten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from frond.contracts.ids import canonical_json, digest
from frond.contracts.jobs import Contract, ModelRef, Shadow, Thresholds

MOST_WINDOWS_AN_IMAGE: Final = 1 << 27
"""At the very most; the tiler has a limit of its own."""


class Box(NamedTuple):
    """A rectangle of whole pixels: columns [x0, x1), rows [y0, y1)."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0


class WindowGrid(Contract):
    """Windows of ``size``² pixels over an image of width × height *scaled* pixels.

    Scaled pixels are the raster's own, resampled to the model's GSD (``scale`` scaled pixels a
    raster pixel). Cores tile the image exactly: each scaled pixel is in one core. A window is its
    core grown by ``margin`` and shifted inwards at the image's edges; where the image is smaller
    than a window, the window equals the image in that direction and the reader reflects.
    """

    width: int = Field(ge=1, description="scaled pixels")
    height: int = Field(ge=1, description="scaled pixels")
    size: int = Field(ge=8, description="the model's input side, scaled pixels")
    margin: int = Field(ge=0, description="scaled pixels on each side of a core")
    scale: float = Field(default=1.0, gt=0, description="scaled pixels a raster pixel")

    @model_validator(mode="after")
    def _has_cores(self) -> WindowGrid:
        if self.stride < 1:
            raise ValueError(f"margins of {self.margin} leave no core in {self.size}")
        if self.count > MOST_WINDOWS_AN_IMAGE:
            raise ValueError(f"more than {MOST_WINDOWS_AN_IMAGE} windows")
        return self

    @property
    def stride(self) -> int:
        """The side of a core."""
        return self.size - 2 * self.margin

    @property
    def cols(self) -> int:
        return _count(self.width, self.size, self.margin)

    @property
    def rows(self) -> int:
        return _count(self.height, self.size, self.margin)

    @property
    def count(self) -> int:
        return self.cols * self.rows

    def core(self, index: int) -> Box:
        """The core of a window, in scaled pixels."""
        row, col = divmod(index, self.cols)
        x0, x1 = _core(col, self.cols, self.width, self.size, self.margin)
        y0, y1 = _core(row, self.rows, self.height, self.size, self.margin)
        return Box(x0, y0, x1, y1)

    def window(self, index: int) -> Box:
        """What is read for a window, in scaled pixels: inside the image, ``size``² or smaller."""
        row, col = divmod(index, self.cols)
        x0, x1 = _window(col, self.width, self.size, self.margin)
        y0, y1 = _window(row, self.height, self.size, self.margin)
        return Box(x0, y0, x1, y1)

    def blocks(self, windows: int) -> Iterator[list[int]]:
        """The chunks: near-square blocks of about ``windows`` neighbouring window indices."""
        side = max(1, round(windows**0.5))
        wide = min(self.cols, max(side, windows // max(1, min(side, self.rows))))
        high = max(1, windows // wide)
        for r0 in range(0, self.rows, high):
            for c0 in range(0, self.cols, wide):
                yield [
                    r * self.cols + c
                    for r in range(r0, min(r0 + high, self.rows))
                    for c in range(c0, min(c0 + wide, self.cols))
                ]


def _count(length: int, size: int, margin: int) -> int:
    # the first and the last core reach to the image's edge, so they are `margin` longer
    if length <= size:
        return 1
    return -(-(length - 2 * margin) // (size - 2 * margin))


def _window(i: int, length: int, size: int, margin: int) -> tuple[int, int]:
    if length <= size:
        return 0, length
    start = min(i * (size - 2 * margin), length - size)
    return start, start + size


def _core(i: int, n: int, length: int, size: int, margin: int) -> tuple[int, int]:
    stride = size - 2 * margin
    start = 0 if i == 0 else margin + i * stride
    stop = length if i == n - 1 else margin + (i + 1) * stride
    return start, stop


class Georeference(Contract):
    """How pixels become map coordinates.

    ``transform`` is the geotransform in rasterio's order (a, b, c, d, e, f):
    x = a·col + b·row + c, y = d·col + e·row + f, of pixel corners, raster pixels.
    """

    kind: Literal["affine", "gcps", "rpcs", "none"] = "none"
    crs: str | None = Field(default=None, description="EPSG:n, or WKT2 where there is no code")
    transform: tuple[float, float, float, float, float, float] | None = None
    gcps: tuple[tuple[float, float, float, float, float], ...] = Field(
        default=(), description="(row, col, x, y, z)"
    )
    rpcs: dict[str, float | str | list[float]] | None = Field(
        default=None, description="RPC00B terms as rasterio.rpc.RPC.to_dict gives them"
    )


class Radiometry(Contract):
    """How samples become the model's input range.

    ``native``: samples go in as they are (uint8 into a model of uint8). ``stretch``: each band is
    mapped linearly from [low, high] to [0, 255] and clipped; low and high are the whole raster's
    (never one window's), so that there are no seams.
    """

    mode: Literal["native", "stretch"] = "native"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    fill: tuple[int, ...] = Field(
        default=(),
        description="0…255 by band: what the model sees where a pixel means nothing "
        "(nodata, alpha 0, masked, NaN); empty: 0",
    )


class RasterSource(Contract):
    """What the reader needs to see a raster as the plan meant it."""

    uri: str = Field(description="s3:// address of what is read: the raster, or the COG made of it")
    etag: str = Field(description="of the object that uri names, when it was planned")
    size: int = Field(ge=0, description="bytes of that object")
    bands: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        min_length=1, description="1-based, in the model's order"
    )
    dtype: str = Field(pattern=r"^(u?int(8|16|32|64)|float(16|32|64))$")
    width: int = Field(ge=1, le=1 << 31, description="raster pixels")
    height: int = Field(ge=1, le=1 << 31, description="raster pixels")
    radiometry: Radiometry = Radiometry()
    palette: bool = Field(default=False, description="band 1 indexes a colour table: expand to RGB")


class ImagePlan(Contract):
    """One image's plan, stored at ``images/{image}/plan.json`` before any chunk is sent."""

    job_id: str
    image_id: str
    image: str = Field(description="URI as the sender gave it")
    name: str
    job_size: int | None = None
    checksum: str | None = Field(
        default=None, description="ETag of the raster as it was sent, when a COG was made of it too"
    )
    source: RasterSource
    georeference: Georeference = Georeference()
    gsd_m: float | None = Field(default=None, description="ground metres a raster pixel")
    gsd_source: Literal["given", "estimated"] | None = Field(
        default=None,
        description="whose word gsd_m is: the sender's, or an estimate from the model's own finds; "
        "None: the raster's",
    )
    grid: WindowGrid
    model: ModelRef
    thresholds: Thresholds = Thresholds()
    shadow: Shadow | None = Field(
        default=None, description="changes no result's bytes, and is no part of the plan's digest"
    )
    windows_per_chunk: int = Field(default=32, ge=1, le=1024)
    skipped: str = Field(
        default="",
        description="bitmap of skipped windows, least significant bit first: "
        "base64 of zlib; empty when none is",
    )
    windows_skipped: int = 0
    chunks: int = Field(ge=0, description="chunks with at least one window to run")
    notes: tuple[str, ...] = Field(
        default=(), description="what a user should know: no CRS, no GSD, band guesses"
    )

    @property
    def image_checksum(self) -> str:
        """ETag of the raster as it was sent."""
        return self.checksum or self.source.etag

    @property
    def plan_digest(self) -> str:
        """32 hex digits over everything that can change a result's bytes."""
        what = self.model_dump(
            mode="json",
            include={"source", "grid", "model", "thresholds", "windows_per_chunk", "skipped"},
        )
        if self.checksum is not None:
            # where the copy lies depends on the job, and what is in it does not
            what["source"]["uri"] = self.image
        return digest("plan", canonical_json(what).decode())
