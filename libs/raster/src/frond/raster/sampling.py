"""Statistics over a whole raster from a bounded number of its pixels, always the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from frond.contracts.plan import Box, Radiometry, WindowGrid
from frond.raster.gdal import gdal_errors
from frond.raster.inspect import RasterInfo
from frond.raster.open import Dataset
from frond.raster.skip import raster_box
from frond.raster.validity import Palette, Validity, both

_SIDE: Final = 2048
_WHOLE_PIXELS: Final = 16_000_000
_LATTICE: Final = 16
_PATCH: Final = 128
_ENOUGH: Final = 10_000
_STEP_BYTES: Final = 32 << 20
_STEP_ROWS: Final = 512
_WINDOWS: Final = 64
# in this order any number of the first of them is spread over all
_TURNS: Final = sorted(range(_WINDOWS), key=lambda n: f"{n:06b}"[::-1])
_GRADED: Final = 0.5
_GRADES: Final = 16
_HUGE: Final = 1e30


@dataclass(frozen=True, slots=True)
class Samples:
    """What was seen of a raster.

    Attributes:
        values: valid samples, band by band: [n, bands].
        alpha: the alpha band's samples above 0; none where there is no such band.
        nodata: of each band: what its own samples must not be to count among them.
        few: so few that what is valid may have been missed.
    """

    values: NDArray[Any]
    alpha: NDArray[Any]
    nodata: tuple[float | None, ...] = ()
    few: bool = False

    @property
    def graded_alpha(self) -> bool:
        """The alpha band is mostly neither nothing nor all, and never the same for long: it measures
        something, as near infrared does, and tells of no transparency."""
        return _graded(self.alpha)

    def of_band(self, index: int) -> NDArray[Any]:
        """One band's samples. A pixel means nothing only where every band has its nodata value; where
        one alone has it, that sample is no measurement of this band. All, where nothing else is there.
        """
        values = self.values[:, index]
        value = self.nodata[index] if index < len(self.nodata) else None
        if value is None or value != value:
            return values
        own = values[values != values.dtype.type(value)]
        return own if len(own) else values


def sample(
    dataset: Dataset, info: RasterInfo, read_bands: tuple[int, ...], validity: Validity
) -> Samples:
    """At most about 2048² valid pixels spread over the raster; deterministic.

    Small rasters and those with overviews are read decimated; of others a lattice of patches is
    read at full resolution, because a decimated read would decode every tile.

    Raises:
        RasterRejected: pixels are missing or damaged.
    """
    seen = _Seen(dataset, read_bands, validity)
    looked = 0
    with gdal_errors(reading=True):
        for window, shape in _patches(info):
            seen.read(window, shape)
            looked += shape[0] * shape[1]
    whole = max(info.width, info.height) <= _SIDE
    return seen.samples(few=not whole and seen.valid < min(_ENOUGH, looked))


def sample_windows(
    dataset: Dataset,
    info: RasterInfo,
    read_bands: tuple[int, ...],
    validity: Validity,
    grid: WindowGrid,
    empty: NDArray[np.bool_],
    known: Samples,
) -> Samples:
    """What is ``known``, and samples of up to 64 windows that are not empty, spread over these: what
    the lattice of a raster with little in it has missed.

    Each is read at full resolution until it has given its share of 2048² samples; no other is begun
    once 16 million pixels have been read. Deterministic.

    Args:
        empty: by window index.

    Raises:
        RasterRejected: pixels are missing or damaged.
    """
    seen = _Seen(dataset, read_bands, validity, known)
    share = _SIDE**2 // _WINDOWS
    full = np.flatnonzero(~empty).tolist()
    count = min(_WINDOWS, len(full))
    looked = 0
    with gdal_errors(reading=True):
        for n in (n for n in _TURNS if n < count):
            if looked >= _WHOLE_PIXELS:
                break
            box = raster_box(
                grid.window(full[n * len(full) // count]), grid, info.width, info.height
            )
            before = seen.valid
            for step in _steps(box, len(read_bands) * info.itemsize):
                room = share - (seen.valid - before)
                if room <= 0:
                    break
                seen.read(step, (step.height, step.width), at_most=room)
                looked += step.height * step.width
    return seen.samples()


class _Seen:
    """Collects samples."""

    def __init__(
        self,
        dataset: Dataset,
        bands: tuple[int, ...],
        validity: Validity,
        known: Samples | None = None,
    ) -> None:
        self._dataset = dataset
        self._bands = list(bands)
        self._validity = validity
        self._values: list[NDArray[Any]] = [known.values] if known else []
        self._alphas: list[NDArray[Any]] = [known.alpha] if known else []
        self.valid = len(known.values) if known else 0

    def read(self, window: Window, shape: tuple[int, int], at_most: int | None = None) -> None:
        """See a window's valid samples, or so many of them, spread over it."""
        data = self._dataset.read(self._bands, window=window, out_shape=(len(self._bands), *shape))
        valid = both(
            self._validity.of_samples(data), self._validity.of_bands(self._dataset, window, shape)
        )
        values = data.reshape(len(data), -1).T if valid is None else data[:, valid].T
        self._values.append(_thinned(values, at_most))
        self.valid += len(self._values[-1])
        if self._validity.alpha is not None:
            alpha = self._dataset.read(self._validity.alpha, window=window, out_shape=shape)
            self._alphas.append(_thinned(alpha[alpha > 0], at_most))

    def samples(self, *, few: bool = False) -> Samples:
        alpha = np.concatenate(self._alphas) if self._alphas else np.zeros(0, np.uint8)
        return Samples(np.concatenate(self._values), alpha, self._validity.nodata, few)


def _thinned(values: NDArray[Any], at_most: int | None) -> NDArray[Any]:
    if at_most is None or len(values) <= at_most:
        return values
    return values[:: -(-len(values) // at_most)].copy()


def _steps(box: Box, pixel_bytes: int) -> Iterator[Window]:
    high = max(1, min(_STEP_ROWS, _STEP_BYTES // (box.width * pixel_bytes)))
    for y in range(box.y0, box.y1, high):
        yield Window(box.x0, y, box.width, min(high, box.y1 - y))


def _graded(alpha: NDArray[Any]) -> bool:
    """Whether values above 0 measure something: feathered edges are few, a faded image is even."""
    if not len(alpha):
        return False
    between = alpha[alpha < alpha.max()]
    return len(between) > _GRADED * len(alpha) and len(np.unique(between)) >= _GRADES


def _patches(info: RasterInfo) -> Iterator[tuple[Window, tuple[int, int]]]:
    factor = max(1.0, info.width / _SIDE, info.height / _SIDE)
    has_overview = bool(info.overviews) and info.overviews[-1] * 2 >= factor
    if info.pixels <= _WHOLE_PIXELS or has_overview:
        shape = (max(1, int(info.height / factor)), max(1, int(info.width / factor)))
        yield Window(0, 0, info.width, info.height), shape
        return
    for top in _starts(info.height):
        for left in _starts(info.width):
            w, h = min(_PATCH, info.width - left), min(_PATCH, info.height - top)
            yield Window(left, top, w, h), (h, w)


def _starts(length: int) -> list[int]:
    last = max(0, length - _PATCH)
    return sorted({round(i * last / (_LATTICE - 1)) for i in range(_LATTICE)})


def radiometry_of(
    samples: Samples, dtype: str, palette: Palette | None, *, bits: int = 8
) -> Radiometry:
    """How samples become 0…255, and what stands in for a pixel that means nothing.

    uint8 goes in as it is, where fewer than 8 ``bits`` are used stretched between all that these can
    be. Everything else is stretched between the raster's 2nd and 98th percentile, band by band, of what
    is not the band's nodata value. ``fill`` is each band's mean after that, so that the edge of the
    valid area is no edge to the model's eye.
    """
    values = samples.values
    if palette is not None:
        values = palette[values[:, 0]][:, :3]
    bands = values.shape[1]
    if dtype == "uint8":
        most = 2.0**bits - 1
        mean = values.mean(axis=0) * (255 / most) if len(values) else np.zeros(bands)
        fill = tuple(int(v) for v in np.rint(mean))
        if bits == 8:
            return Radiometry(fill=fill)
        return Radiometry(mode="stretch", low=(0.0,) * bands, high=(most,) * bands, fill=fill)
    if len(values) == 0:
        return Radiometry(
            mode="stretch", low=(0.0,) * bands, high=(1.0,) * bands, fill=(0,) * bands
        )
    ranges, means = [], []
    for seen in map(samples.of_band, range(bands)):
        low, high = _range(seen)
        ranges.append((low, high))
        with np.errstate(over="ignore"):
            means.append(np.clip(stretched(seen, low, high), 0, 255).mean())
    return Radiometry(
        mode="stretch",
        low=tuple(low for low, _ in ranges),
        high=tuple(high for _, high in ranges),
        fill=tuple(int(v) for v in np.rint(means)),
    )


def stretched(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Samples on the line on which ``low`` is 0 and ``high`` 255, not clipped."""
    if not math.isfinite(high - low):
        values, low, high = values / 2, low / 2, high / 2
    return np.asarray((values - low) * (255.0 / (high - low)))


def _range(seen: NDArray[Any]) -> tuple[float, float]:
    values = seen.astype(np.float64)
    low, high = (float(v) for v in np.percentile(values, [2, 98]))
    if not math.isfinite(high - low):
        # between two numbers that are farther from each other than numbers go
        low, high = (float(v) * 2 for v in np.percentile(values / 2, [2, 98]))
    kind = seen.dtype if seen.dtype.kind == "f" else values.dtype
    # so little that 255 of it are not told from each other
    nothing = 256 * float(np.finfo(kind).tiny)
    # a constant band, or one with a few bright pixels: any range that is not empty will do
    for above in (high, float(values.max()), low + 1.0, math.nextafter(low, math.inf)):
        if above - low > nothing and math.isfinite(above):
            return low, above
    return math.nextafter(low, -math.inf), low


def stretch_note(
    radiometry: Radiometry, samples: Samples, dtype: str, bands: tuple[int, ...]
) -> str:
    """What a user should know of a stretch: which samples became black and white, band by band.

    Args:
        bands: 1-based, those that the model sees, in the order of the radiometry's and the samples'.
    """
    told = []
    for index, (band, low, high) in enumerate(
        zip(bands, radiometry.low, radiometry.high, strict=True)
    ):
        values = samples.of_band(index)
        flat = values.min() == values.max()
        seen = f"is {low:.6g} throughout" if flat else f"from {low:.6g} to {high:.6g}"
        told.append(f"band {band} {seen}")
    huge = [v for v in (*radiometry.low, *radiometry.high) if abs(v) > _HUGE]
    hint = f"; if {huge[0]:.17g} means no data, say so: gdal_edit.py -a_nodata" if huge else ""
    return (
        f"{dtype} samples seen as 0 to 255, 2nd to 98th percentile of the image: {', '.join(told)}"
        + hint
    )
