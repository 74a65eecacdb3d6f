"""Labelled images: a COCO file, its images beside it, its categories as a model's classes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from frond.contracts.errors import UserError
from frond.contracts.reasons import Reason
from frond.evaluation.runs import are_sound

_PIECE: Final = 1 << 20
_NAMED: Final = 5
# pixels: beyond what a raster may have on a side, and such boxes still fit the index of overlaps
_FARTHEST: Final = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """An image's labels, in an order that is theirs alone.

    Attributes:
        boxes: float64 [n, 4]: x0, y0, x1, y1 in raster pixels.
        classes: int32 [n], index into the model's classes.
        crowd: bool [n]: a region that neither helps nor harms (``iscrowd``).
        shapes: COCO's ``segmentation`` of each: polygons, run lengths or None.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    shapes: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image; ``width`` and ``height`` as the labels say, None where they do not."""

    name: str
    path: Path
    width: int | None
    height: int | None
    labels: Labels


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a model is judged on.

    Attributes:
        file: the COCO file.
        images: by their names.
        judged: the model's classes (indices) that the labels can judge.
        categories: name of each category that counts, and of the class it counts as.
        notes: what was left out, in sentences.
    """

    file: Path
    images: tuple[LabelledImage, ...]
    judged: tuple[int, ...]
    categories: Mapping[str, str]
    notes: tuple[str, ...]

    def digest(self) -> str:
        """SHA-256 over the labels' file and every image that is there, by name."""
        whole = hashlib.sha256(_sha256(self.file))
        for image in self.images:
            if image.path.is_file():
                whole.update(image.name.encode() + b"\0" + _sha256(image.path))
        return whole.hexdigest()


def load(
    where: Path,
    classes: Sequence[str],
    *,
    images: Path | None = None,
    renamed: Mapping[str, str] | None = None,
    masks: bool = False,
) -> Dataset:
    """Read a COCO file for a model of these classes.

    Args:
        where: the file, or a folder with one such file in it.
        images: what file names are relative to; by default the file's folder.
        renamed: category → class, where their names differ.
        masks: labels need a ``segmentation``; else a ``bbox``.

    Raises:
        UserError: there is no such file, it is no COCO file, an id in it means two things, none of
            its categories is a class, or all labels that would count are crowd regions and no image
            without labels is left to judge boxes by.
    """
    file = _file(where)
    told = _read(file)
    base = images or file.parent
    # the same category twice does no harm
    pairs = list(dict.fromkeys((c["id"], str(c["name"])) for c in told["categories"]))
    if (again := _twice([k for k, _ in pairs])) is not None:
        raise _bad(
            f"{file} lists category id {again} twice, with different names. Number the categories "
            "anew when files are joined."
        )
    categories = dict(pairs)
    counted = Counter(a.get("category_id") for a in told["annotations"])
    mapping, notes = _matched(categories, counted, classes, renamed or {}, file)
    names = [str(i["file_name"]) for i in told["images"]]
    if not names:
        raise _bad(f"{file} lists no images. Export the labels together with their images.")
    if (again := _twice(names)) is not None:
        raise _bad(f"{file} lists {again} twice. Give each image one entry.")
    if (again := _twice([i["id"] for i in told["images"]])) is not None:
        raise _bad(
            f"{file} lists image id {again} twice. Number the images anew when files are joined."
        )
    if not any((base / n).is_file() for n in names):
        raise _bad(
            f"None of the {len(names)} images that {file.name} names is there; the first would be "
            f"{base / names[0]}. Say with --images which folder the names are relative to."
        )
    of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    unusable = 0
    for a in told["annotations"]:
        if a.get("category_id") not in mapping:
            continue
        if _usable(a, masks):
            of_image[a.get("image_id")].append(a)
        else:
            unusable += 1
    if unusable:
        field = "segmentation of polygons or run lengths" if masks else "bbox with area"
        notes.append(f"{_count(unusable, 'label')} without a {field}: left out.")
    ids = {i["id"] for i in told["images"]}
    if stray := sum(len(v) for k, v in of_image.items() if k not in ids):
        notes.append(f"{_count(stray, 'label')} of images that are not listed: left out.")
    # finds on an image without labels are false ones; pixels there say nothing of a class
    empty = not masks and any(not of_image.get(k) for k in ids)
    notes += _crowds([a for k in ids for a in of_image.get(k, ())], file, alone=empty)
    made = [
        LabelledImage(
            str(i["file_name"]), base / str(i["file_name"]), _side(i, "width"), _side(i, "height"),
            _labels(of_image.get(i["id"], ()), mapping),
        )
        for i in told["images"]
    ]  # fmt: skip
    judged = tuple(sorted(set(mapping.values()))) if mapping else tuple(range(len(classes)))
    missing = [c for n, c in enumerate(classes) if n not in judged]
    if missing:
        notes.append(
            f"No category of the labels is the model's {_some(missing)}: what it finds of "
            f"{'them' if len(missing) > 1 else 'it'} is not judged."
        )
    return Dataset(
        file, tuple(sorted(made, key=lambda i: i.name)), judged,
        {categories[k]: classes[v] for k, v in mapping.items()}, tuple(notes),
    )  # fmt: skip


def _file(where: Path) -> Path:
    if where.is_file():
        return where
    if not where.is_dir():
        raise _bad(f"There is no {where}. Name a COCO file, or a folder with one in it.")
    found = sorted(p for p in where.glob("*.json") if p.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise _bad(
            f"{where} holds no .json file. Export the labels in COCO's format (instances), "
            "with their images beside them."
        )
    raise _bad(
        f"{where} holds {len(found)} .json files ({_some([p.name for p in found])}): name the one "
        "that holds the labels."
    )


def _read(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        told = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise _bad(f"{file} is not JSON. Export the labels in COCO's format (instances).") from None
    if not isinstance(told, dict) or not isinstance(told.get("images"), list):
        raise _bad(
            f"{file} is JSON, but no COCO file: it has no list of images. Export the labels in "
            "COCO's format (instances)."
        )
    parts: dict[str, list[dict[str, Any]]] = {}
    needs = {"images": ("id", "file_name"), "categories": ("id", "name"), "annotations": ()}
    for part, fields in needs.items():
        entries = told.get(part) or []
        if not isinstance(entries, list) or not all(
            isinstance(e, dict)
            and all(isinstance(e.get(f), str | int) for f in fields)
            and all(isinstance(e.get(f), str | int | None) for f in ("image_id", "category_id"))
            for e in entries
        ):
            wanted = " and ".join(fields) or "its image_id and category_id"
            raise _bad(f"{file}: an entry of {part} lacks {wanted}. Export the labels again.")
        parts[part] = entries
    return parts


def _twice(values: Sequence[str | int]) -> str | int | None:
    """The first of these that is there more than once."""
    return next((v for v, n in Counter(values).items() if n > 1), None)


def _matched(
    categories: Mapping[Any, str],
    counted: Mapping[Any, int],
    classes: Sequence[str],
    renamed: Mapping[str, str],
    file: Path,
) -> tuple[dict[Any, int], list[str]]:
    """Category id → class index, and what there is to say about the rest."""
    place = {c.strip().casefold(): n for n, c in reversed(list(enumerate(classes)))}
    for one, other in renamed.items():
        if one not in categories.values():
            raise _bad(
                f"--map {one}={other}: the labels have no category {one!r}; they have "
                f"{_held(categories, counted) or 'none'}."
            )
        if other.strip().casefold() not in place:
            raise _bad(
                f"--map {one}={other}: the model has no class {other!r}; it has {_some(classes)}."
            )
    mapping = {}
    for k, name in categories.items():
        at = place.get(renamed.get(name, name).strip().casefold())
        if at is not None:
            mapping[k] = at
    if not mapping and counted:
        raise _bad(
            f"No category of {file.name}, which has {_held(categories, counted) or 'none'}, is a "
            f"class of the model ({_some(classes)}). Say which is which with --map CATEGORY=CLASS."
        )
    if renamed and not any(counted.get(k) for k in mapping) and any(map(counted.get, categories)):
        # images without labels of these classes may be meant; who maps categories means their labels
        raise _bad(
            f"--map leads to no label: {file.name} has {_held(categories, counted)}. Map the "
            "category whose labels are to be judged."
        )
    notes = []
    rest = sorted({n for k, n in categories.items() if k not in mapping and counted.get(k)})
    lost = sum(n for k, n in counted.items() if k not in mapping and k in categories)
    if rest:
        notes.append(
            f"{'Categories' if len(rest) > 1 else 'Category'} {_some(rest)}: no class of the model; "
            f"{_count(lost, 'label')} left out (--map {rest[0]}=CLASS says which it is)."
        )
    if stray := sum(n for k, n in counted.items() if k not in categories):
        notes.append(f"{_count(stray, 'label')} of categories that are not listed: left out.")
    return mapping, notes


def _crowds(labels: Sequence[Mapping[str, Any]], file: Path, *, alone: bool) -> list[str]:
    """What there is to say of crowd regions.

    Args:
        alone: whether there may be no other labels; else that is a UserError.
    """
    crowds = sum(map(_is_crowd, labels))
    if crowds and crowds == len(labels) and not alone:
        raise _bad(
            f"{file.name} has no label that counts: {_count(crowds, 'label')}, and iscrowd is 1 in each, "
            "which marks a region that is not judged. Tools that export masks as run lengths set it: "
            "where these are labels, set iscrowd to 0."
        )
    if not crowds:
        return []
    return [
        f"{_count(crowds, 'label')} with iscrowd 1, which marks a region that is not judged: not counted. "
        "Tools that export masks as run lengths set it, too."
    ]


def _is_crowd(a: Mapping[str, Any]) -> bool:
    # tools that make JSON of text write the number as such
    return str(a.get("iscrowd") or 0).strip().casefold() not in ("0", "false")


def _held(categories: Mapping[Any, str], counted: Mapping[Any, int]) -> str:
    """The categories by name, each with how many labels it has."""
    labels: Counter[str] = Counter()
    for k, name in categories.items():
        labels[name] += counted.get(k, 0)
    return _some(
        [f"{c} ({_count(n, 'label') if n else 'none'})" for c, n in sorted(labels.items())]
    )


def _usable(a: Mapping[str, Any], masks: bool) -> bool:
    if masks:
        shape = a.get("segmentation")
        if isinstance(shape, dict):
            return are_sound(shape) and _places(shape["size"])
        return bool(shape) and isinstance(shape, list) and all(_ring(r) for r in shape)
    return _box(a.get("bbox"))


def _box(box: object) -> TypeGuard[list[float]]:
    return isinstance(box, list) and len(box) == 4 and _places(box) and box[2] > 0 and box[3] > 0


def _ring(ring: object) -> bool:
    return isinstance(ring, list) and len(ring) >= 6 and not len(ring) % 2 and _places(ring)


def _places(values: Sequence[object]) -> bool:
    """Whether these are numbers, of places or sizes that an image may have."""
    return all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _FARTHEST
        for v in values
    )


def _labels(annotations: Sequence[Mapping[str, Any]], mapping: Mapping[Any, int]) -> Labels:
    rows = []
    for a in annotations:
        box = a.get("bbox")
        # masks need none, and it may be anything then
        x, y, w, h = box if _box(box) else (0, 0, 0, 0)
        rows.append(((x, y, x + w, y + h), mapping[a["category_id"]], _is_crowd(a),
                     a.get("segmentation")))  # fmt: skip
    # whatever order the file has them in
    rows.sort(key=lambda r: (r[1], r[0], r[2], json.dumps(r[3], sort_keys=True)))
    return Labels(
        np.array([r[0] for r in rows], np.float64).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int32),
        np.array([r[2] for r in rows], np.bool_),
        tuple(r[3] for r in rows),
    )


def _side(image: Mapping[str, Any], field: str) -> int | None:
    value = image.get(field)
    return value if isinstance(value, int) and value > 0 else None


def _sha256(file: Path) -> bytes:
    whole = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            whole.update(piece)
    return whole.digest()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _bad(detail: str) -> UserError:
    return UserError(Reason.BAD_REQUEST, detail)
