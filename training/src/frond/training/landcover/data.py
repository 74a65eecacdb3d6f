"""Labelled scenes: parts put together again, colours as class numbers.

A scene of the Dubai set was cut into nine parts, three by three, that share no pixels and lie edge
to edge. Put together they give windows the surroundings that a real raster gives them. A scene is
trained on or judged on as a whole: parts of one scene look alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frond.training.config import Config, bad
from frond.training.landcover.config import BACKGROUND, CLASSES, IGNORED, Settings, settings
from frond.training.prepared import Store, prepared

GSD_M: Final = 1.0
"""Estimated: lanes of motorways lie 3.8 pixels apart, cars are four to five long (MODEL_CARD.md)."""

_SIDE: Final = 3
# what the masks really hold; the set's classes.json names other colours
_COLOURS: Final = {
    (60, 16, 152): CLASSES.index("building"),
    (110, 193, 228): CLASSES.index("road"),
    (226, 169, 41): CLASSES.index("water"),
    (254, 221, 58): CLASSES.index("vegetation"),
    (132, 41, 246): BACKGROUND,
    # unlabelled: boats, heaps, building sites; none of the four
    (155, 155, 155): BACKGROUND,
    (0, 0, 0): IGNORED,
}
_VERSION: Final = 1

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Scene:
    """One whole scene: ``pixels`` [h, w, 3] and ``labels`` [h, w], class numbers."""

    name: str
    pixels: Bytes
    labels: Bytes


def prepare(config: Config, folder: Path) -> str:
    """All scenes into ``folder``, see :func:`frond.training.prepared.prepared`; returns the digest.

    Which scenes are held out is left to who reads them: prepared data serve every split.

    Raises:
        UserError: there is no data, a scene is not nine images with a mask each that fit together, a
            file cannot be read, or a mask has an unknown colour or another size than its image.
    """
    root = config.data / "landcover" / "dubai"
    places = sorted(p for p in root.glob("*") if (p / "images").is_dir() or (p / "masks").is_dir())
    sources = [f for p in places for f in p.rglob("image_part_*") if f.is_file()]
    shares: dict[str, Any] = {}

    def make() -> Iterator[tuple[str, NDArray[Any]]]:
        for place in places:
            scene = _read(place)
            counts = np.bincount(scene.labels.ravel(), minlength=256)
            shares[scene.name] = {
                "size": list(scene.labels.shape),
                "pixels": counts[: BACKGROUND + 1].tolist(),
                "ignored": int(counts[IGNORED]),
            }
            yield f"pixels/{scene.name}", scene.pixels
            yield f"labels/{scene.name}", scene.labels

    recipe = {"kind": "landcover", "code": _VERSION, **settings(config).recipe()}
    return prepared(folder, config.data, sources, recipe, make, lambda: {"scenes": shares})


def scenes(store: Store) -> dict[str, Scene]:
    """All scenes of prepared data, by name; mapped, not read."""
    return {
        name: Scene(name, store.array(f"pixels/{name}"), store.array(f"labels/{name}"))
        for name in sorted(store.about["scenes"])
    }


def split(config: Settings, found: dict[str, Scene]) -> tuple[list[Scene], list[Scene]]:
    """Scenes to learn from, and the validation's.

    Raises:
        UserError: a scene that is held out does not exist, or none is left to learn from.
    """
    for name in config.held_out:
        if name not in found:
            raise bad(f"There is no scene {name} to hold out; there are {', '.join(found)}.")
    learnt = [s for name, s in found.items() if name not in config.held_out]
    if not learnt:
        raise bad("Every scene is held out: none is left to learn from.")
    return learnt, [found[name] for name in config.validation]


def _read(place: Path) -> Scene:
    images = [_pixels(p) for p in _parts(place / "images")]
    labels = [decoded(p) for p in _parts(place / "masks")]
    for n, (a, b) in enumerate(zip(images, labels, strict=True), 1):
        if a.shape[:2] != b.shape:
            raise bad(f"{place.name}, part {n}: the mask has another size than its image.")
    try:
        return Scene(place.name, together(images), together(labels))
    except ValueError as e:
        raise bad(f"{place}: {e}") from None


def _parts(folder: Path) -> list[Path]:
    found = sorted(folder.glob("image_part_*"))
    if len(found) != _SIDE * _SIDE:
        raise bad(f"{folder} holds {len(found)} parts; a scene has {_SIDE * _SIDE}.")
    # the number alone says where a part lies, and which mask is whose
    for n, path in enumerate(found, 1):
        if path.stem != (name := f"image_part_{n:03d}"):
            raise bad(f"{folder} holds no {name}, but {path.name}. Parts are numbered from 001.")
    return found


def _pixels(path: Path) -> Bytes:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as e:
        # Pillow says SyntaxError of some damaged PNGs
        raise bad(f"{path} cannot be read as an image: {e}. Copy it again.") from None


def decoded(path: Path) -> Bytes:
    """A mask's colours as class numbers.

    Raises:
        UserError: it has a colour that stands for nothing, or cannot be read.
    """
    told = _pixels(path).astype(np.uint32)
    packed = told[..., 0] << 16 | told[..., 1] << 8 | told[..., 2]
    out = np.full(packed.shape, 254, np.uint8)
    for (r, g, b), value in _COLOURS.items():
        out[packed == (r << 16 | g << 8 | b)] = value
    if (out == 254).any():
        y, x = np.argwhere(out == 254)[0]
        raise bad(f"{path}: the colour {told[y, x].tolist()} at {x}, {y} is of no class.")
    return out


def together(parts: list[Bytes]) -> Bytes:
    """Nine parts, row by row, as one array; sizes that differ by a pixel are cut to the least.

    Raises:
        ValueError: they differ by more: the parts are not of one scene.
    """
    for axis, words in enumerate(("heights", "widths")):
        sides = sorted({p.shape[axis] for p in parts})
        if sides[-1] - sides[0] > 1:
            raise ValueError(
                f"the {words} of its parts go from {sides[0]} to {sides[-1]} pixels. Parts of one "
                "scene differ by a pixel at most."
            )
    rows = []
    for k in range(0, len(parts), _SIDE):
        height = min(len(p) for p in parts[k : k + _SIDE])
        rows.append(np.concatenate([p[:height] for p in parts[k : k + _SIDE]], axis=1))
    width = min(r.shape[1] for r in rows)
    return np.ascontiguousarray(np.concatenate([r[:, :width] for r in rows]))
