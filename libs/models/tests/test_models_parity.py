"""Decoders against the post-processing of the packages whose graphs they read, on recorded outputs.

``parity/record.py`` made the fixtures: a graph of random weights, exported by the family's own
package and run by ONNX Runtime, and what that package makes of the same model in torch. The bar:
the same number of boxes, the same classes, corners within 1e-3 pixels, scores within 1e-3.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from frond.contracts.modelspec import ModelManifest
from frond.models.decoders import DECODERS, decoder_for, detections_of, planes_of
from frond.models.families import recognise
from frond.models.graph import Output, Told

FIXTURES = sorted((Path(__file__).parent / "parity" / "fixtures").glob("*.npz"))
CLOSE = 1e-3


@dataclass(frozen=True)
class Recorded:
    """One fixture.

    Attributes:
        about: the manifest's side, thresholds, versions.
        outputs: of the graph, by name.
        wanted: arrays by name, one dictionary for each pair of thresholds.
    """

    name: str
    about: dict[str, Any]
    outputs: dict[str, NDArray[Any]]
    wanted: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def manifest(self, at: dict[str, Any]) -> ModelManifest:
        about = self.about
        return ModelManifest.model_validate(
            {
                "name": "m",
                "task": about["task"],
                "decoder": {"name": about["decoder"], "params": about["params"]},
                "classes": [f"c{n}" for n in range(about["classes"])],
                "input": {"size": about["size"]},
                "margin": 8,
                "thresholds": at,
                "max_detections": about.get("max_detections", 1000),
            }
        )


def read(path: Path) -> Recorded:
    with np.load(path) as arrays:
        about = json.loads(str(arrays["about"]))
        by_group: dict[str, dict[str, NDArray[Any]]] = {}
        for key in arrays.files:
            group, _, name = key.partition("/")
            by_group.setdefault(group, {})[name] = arrays[key]
    wanted = [by_group[f"want{n}"] for n in range(len(about["cases"]))]
    return Recorded(path.stem, about, by_group["graph"], wanted)


ALL = {r.name: r for r in map(read, FIXTURES)}


def these(*tasks: str) -> Any:
    found = [(r.name, n) for r in ALL.values() if r.about["task"] in tasks
             for n in range(len(r.about["cases"]))]  # fmt: skip
    return pytest.mark.parametrize(("name", "case"), found)


def decoded(recorded: Recorded, at: dict[str, Any]) -> NDArray[np.float64]:
    """[window, x0, y0, x1, y1, score, class], as the service gets them of one run."""
    manifest = recorded.manifest(at)
    found = detections_of(
        decoder_for(manifest).decode(recorded.outputs, manifest, manifest.thresholds)
    )
    parts = [
        np.column_stack([np.full(len(f), n), f.boxes, f.scores, f.classes])
        for n, f in enumerate(found)
    ]
    return np.concatenate(parts).astype(np.float64)


def difference(got: NDArray[np.float64], want: NDArray[np.float64], pixels: float = CLOSE) -> str:
    """What differs between two sets of rows; "" where nothing does by more than the bar."""
    if len(got) != len(want):
        return f"{len(got)} boxes, wanted {len(want)}"
    free = np.ones(len(want), bool)
    for row in got:
        near = (
            free
            & (want[:, 0] == row[0])
            & (want[:, 6] == row[6])
            & (np.abs(want[:, 1:5] - row[1:5]) <= pixels).all(axis=1)
            & (np.abs(want[:, 5] - row[5]) <= CLOSE)
        )
        if not near.any():
            return f"no such box: {row.tolist()}"
        free[np.argmax(near)] = False
    return ""


def test_every_decoder_has_a_recording() -> None:
    """A decoder that is registered is held against a package that makes its graphs."""
    assert {r.about["decoder"] for r in ALL.values()} == set(DECODERS)


def test_recordings_are_small() -> None:
    """150 KB each, 1 MB together."""
    sizes = [p.stat().st_size for p in FIXTURES]
    assert max(sizes) <= 150_000
    assert sum(sizes) <= 1_000_000


@these("detection", "classification")
def test_the_same_boxes_as_the_package(name: str, case: int) -> None:
    """As many, of the same classes, each within 1e-3 of one of the package's."""
    recorded = ALL[name]
    want = recorded.wanted[case]["rows"].astype(np.float64)
    got = decoded(recorded, recorded.about["cases"][case])
    assert difference(got, want) == ""


@these("detection")
def test_the_same_boxes_as_the_package_in_torch(name: str, case: int) -> None:
    """The package's whole road, model and all, never exported: as many boxes of the same classes,
    scores within 1e-3, corners within 1e-3 of the window's side (torch and ONNX Runtime round a
    deep random network differently, by up to 0.03 pixels here)."""
    recorded = ALL[name]
    want = recorded.wanted[case]["torch"].astype(np.float64)
    got = decoded(recorded, recorded.about["cases"][case])
    assert difference(got, want, CLOSE * recorded.about["size"]) == ""


@these("segmentation")
def test_the_same_masks_as_the_package(name: str, case: int) -> None:
    """Probabilities within 1e-3 and half a step of their 8 bits; the package's label wherever its
    two best are further apart than a step."""
    recorded = ALL[name]
    want = recorded.wanted[case]
    manifest = recorded.manifest(recorded.about["cases"][case])
    found = planes_of(decoder_for(manifest).decode(recorded.outputs, manifest, manifest.thresholds))
    background = manifest.decoder.params.get("background")
    channels = [k for k in range(len(want["probabilities"][0])) if k != background]
    assert len(found) == len(want["labels"])
    for window, labels in zip(found, want["labels"], strict=True):
        # without a background the last plane says but that pixels mean something
        planes = window.planes if background is not None else window.planes[:-1]
        of_plane = np.array([*channels, background] if background is not None else channels)
        best = np.sort(planes.astype(int), axis=0)
        clear = best[-1] - best[-2] > 1
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(of_plane[planes.argmax(axis=0)][clear], labels[clear])
    for window, shares in zip(found, want["probabilities"], strict=False):
        classes = shares[channels].astype(np.float64)
        off = np.abs(window.planes[:-1] / 255 - classes)
        assert off.max() <= CLOSE + 0.5 / 255
        if background is not None:
            off = np.abs(window.planes[-1] / 255 - shares[background].astype(np.float64))
            assert off.max() <= CLOSE + 1 / 255  # never 0, so up to a whole step


@pytest.mark.parametrize("name", list(ALL))
def test_init_knows_the_family(name: str) -> None:
    """`frond models init` tells the decoder, and all parameters that make boxes right or wrong."""
    recorded = ALL[name]
    about = recorded.about
    one = about["decoder"] == "torchvision"
    outputs = [Output(k, (v if one else v[:1],)) for k, v in recorded.outputs.items()]
    classes = [f"c{n}" for n in range(about["classes"])]
    # without names there is no telling whether a channel is the background
    told = Told(classes=tuple(classes) if name in ("detr", "segformer") else ())
    found = recognise(outputs, about["size"], told)
    assert (found.decoder, found.task) == (about["decoder"], about["task"])
    for key in ("boxes", "activation", "sizes", "background", "outputs"):
        assert found.params.get(key) == about["params"].get(key), key
    if found.classes is not None:
        assert found.classes == about["classes"]
