"""Finding missing and damaged pixels before windows are sent out."""

from __future__ import annotations

from typing import Final

from rasterio.windows import Window

from frond.raster.gdal import gdal_errors
from frond.raster.inspect import RasterInfo
from frond.raster.open import Dataset

_MOST_BLOCKS: Final = 100_000
_MOST_DOUBTFUL: Final = 16
_STEP_BYTES: Final = 32 << 20


def check_blocks(dataset: Dataset, info: RasterInfo, size: int) -> None:
    """Hold the places where a TIFF says its tiles or strips are against the file's size.

    Up to 100,000 of them are asked for, spread evenly; only those that reach beyond the file's end
    are read, because writers have been known to overstate a strip's length.

    Raises:
        RasterRejected: TRUNCATED, a tile or strip lies beyond the file's end.
    """
    if info.driver != "GTiff":
        return
    high, wide = info.block
    across, down = -(-info.width // wide), -(-info.height // high)
    total = across * down
    step = max(1, -(-total // _MOST_BLOCKS))
    doubtful = 0
    with gdal_errors(reading=True):
        # backwards: a file that was cut lacks its last tiles
        for block in range(total - 1, -1, -step):
            row, col = divmod(block, across)
            start = dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1)
            if start is None:
                continue
            length = dataset.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1)
            if int(start) + int(length or 0) > size:
                x, y = col * wide, row * high
                there = Window(x, y, min(wide, info.width - x), min(high, info.height - y))
                dataset.read(1, window=there)
                doubtful += 1
                if doubtful == _MOST_DOUBTFUL:
                    return


def check_pixels(dataset: Dataset, info: RasterInfo, bands: tuple[int, ...]) -> None:
    """Read everything once, in strips of bounded memory.

    Raises:
        RasterRejected: TRUNCATED, something cannot be decoded.
    """
    read = [*bands, info.alpha] if info.alpha else list(bands)
    row_bytes = info.width * len(read) * info.itemsize
    high = max(1, min(info.height, _STEP_BYTES // row_bytes))
    if high > info.block[0]:
        high -= high % info.block[0]
    with gdal_errors(reading=True):
        for top in range(0, info.height, high):
            window = Window(0, top, info.width, min(high, info.height - top))
            dataset.read(read, window=window)
            if info.mask:
                dataset.read_masks(1, window=window)
