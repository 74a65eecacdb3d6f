"""The palm detector's data and figures; no torch is needed for them."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from training_support import SMALL, labelled_palms

from frond.client import scenes as scenes_code
from frond.client.scenes import palm_scene
from frond.contracts.errors import UserError
from frond.models import parse_manifest
from frond.training.config import read
from frond.training.palm import evaluate, scales
from frond.training.palm.card import write_manifest
from frond.training.palm.config import Settings
from frond.training.palm.crops import CROP, Sampler
from frond.training.palm.data import (
    CROWN_PX,
    GSD_M,
    SPACING,
    Part,
    Tile,
    declared,
    load,
    prepare,
    rescaled,
    spaced,
)
from frond.training.palm.detect import Predict, detect, detect_whole, onnx_predictor
from frond.training.palm.evaluate import chosen_threshold, judged
from frond.training.palm.lattices import ironwork
from frond.training.palm.pipeline import found_in
from frond.training.prepared import Store

CONFIG = Path(__file__).parents[1] / "configs" / "palm.yaml"
MODEL = Path(__file__).parents[2] / "models" / "palm-detector"
PIXELS = np.zeros((200, 300, 3), np.uint8)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    labelled_palms(tmp_path / "data")
    config = Settings(**SMALL, data=tmp_path / "data")
    prepare(config, tmp_path / "prepared")
    return tmp_path / "prepared"


def test_labels_of_ones_own(own: Path) -> None:
    """COCO files in train and val: crowns at 60 px, images without labels as background."""
    (train,), (free,) = load(own, "train"), load(own, "background")
    assert (len(train.tiles), len(free.tiles)) == (2, 1)
    every = np.concatenate([t.boxes for t in train.tiles])
    sides = np.sqrt(np.prod(every[:, 2:] - every[:, :2], axis=1))
    assert np.median(sides) == pytest.approx(60, rel=0.02)
    assert [len(p.tiles) for p in load(own, "val")] == [2]
    assert [len(p.tiles) for p in load(own, "val-background")] == [1]


def squares(told: dict[str, Any], *sides: float) -> None:
    """Labels of one size in each image; images beyond have none."""
    told["annotations"] = [
        {"id": 9 * n + k, "image_id": n, "category_id": 1, "bbox": [40 * k, 30, side, side]}
        for n, side in enumerate(sides) for k in range(4)
    ]  # fmt: skip


def test_all_images_of_a_file_are_brought_to_one_scale(tmp_path: Path) -> None:
    """As a job sees them: with palms or without, with a crowd alone; large palms stay larger than
    small ones. A file of labels without a palm is taken as the others are."""

    def crowd(told: dict[str, Any]) -> None:
        squares(told, 20, 40)
        told["annotations"].append(
            {"id": 99, "image_id": 2, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 50, 50]}
        )

    prepare(changed(tmp_path / "a", crowd), tmp_path / "pa")
    (part,) = load(tmp_path / "pa", "train")
    # the median of 20 and 40 comes to 60
    assert [t.pixels.shape for t in part.tiles] == [(320, 400, 3)] * 3
    assert [np.ptp(t.boxes[:1, ::2]) for t in part.tiles[:2]] == [40, 80]
    config = changed(tmp_path / "b", lambda told: squares(told, 20, 40))
    here = tmp_path / "b" / "train"
    none = json.loads((here / "labels.json").read_text()) | {"annotations": []}
    (here / "none").mkdir()
    for image in none["images"]:
        Image.new("L", (200, 160), 9).save(here / "none" / image["file_name"])
    (here / "none" / "labels.json").write_text(json.dumps(none))
    prepare(config, tmp_path / "pb")
    free = load(tmp_path / "pb", "background")
    assert [(p.name, len(p.tiles)) for p in free] == [
        ("labels without labels", 1),
        ("none/labels without labels", 3),
    ]
    assert {t.pixels.shape for p in free for t in p.tiles} == {(320, 400, 3)}


def test_labels_without_a_palm_are_told(tmp_path: Path) -> None:
    """Nothing tells the scale, and nothing could be learnt."""
    with pytest.raises(UserError, match="no labelled palm"):
        prepare(changed(tmp_path / "d", lambda told: squares(told), "val"), tmp_path / "p")


def placed(data: Path, crs: str, pixel: float) -> Settings:
    """Labelled palms of 20 px in GeoTIFFs of such pixels, at the equator."""

    def move(told: dict[str, Any]) -> None:
        squares(told, 20, 20)
        for image in told["images"]:
            image["file_name"] = image["file_name"].replace("png", "tif")

    config = changed(data, move)
    for n in range(3):
        with rasterio.open(
            data / "train" / f"{n}.tif", "w", driver="GTiff", width=200, height=160, count=3,
            dtype="uint8", photometric="RGB", crs=crs,
            transform=rasterio.transform.from_origin(0.0, 0.0, pixel, pixel),
        ) as out:  # fmt: skip
            out.write(np.moveaxis(np.asarray(Image.open(data / "train" / f"{n}.png")), -1, 0))
    return config


def manifest_of(config: Settings, prepared: Path, folder: Path) -> dict[str, Any]:
    mine, gsd_m = declared(config, prepared)
    folder.mkdir()
    write_manifest(folder, mine, None, gsd_m)
    return parse_manifest((folder / "model.yaml").read_bytes()).model_dump()


@pytest.mark.parametrize(("crs", "pixel"), [("EPSG:3857", 0.15), ("EPSG:4326", 0.15 / 111_319.49)])
def test_a_model_of_ones_own_declares_the_scale_that_it_learnt_at(
    tmp_path: Path, crs: str, pixel: float
) -> None:
    """Crowns of 20 px at 0.15 m have 60 px at 0.05 m, in metres or degrees; the config's word is for
    images that say nothing."""
    config = placed(tmp_path / "data", crs, pixel).model_copy(update={"gsd_m": 7.0})
    prepare(config, tmp_path / "p")
    told = manifest_of(config, tmp_path / "p", tmp_path / "m")
    assert told["gsd_m"] == pytest.approx(0.05, rel=0.01)
    assert told["object_px"] == CROWN_PX
    assert f"of about {told['gsd_m']:g} m" in told["description"]


def test_images_that_say_no_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their GSD is what the config says; where it says none, the model declares none, and that is
    told. The config's word needs no preparing anew."""
    config = changed(tmp_path / "data", lambda told: squares(told, 20, 20))
    digest = prepare(config, tmp_path / "p")
    assert "declares none" in " ".join(capsys.readouterr().err.split())
    told = manifest_of(config, tmp_path / "p", tmp_path / "m")
    assert (told["gsd_m"], told["object_px"]) == (None, None)
    assert "0.14" not in told["description"]
    config = config.model_copy(update={"gsd_m": 0.15})
    assert prepare(config, tmp_path / "p") == digest
    assert "a pixel is 0.05 m" in " ".join(capsys.readouterr().err.split())
    told = manifest_of(config, tmp_path / "p", tmp_path / "n")
    assert (told["gsd_m"], told["object_px"]) == (0.05, CROWN_PX)


def test_a_model_of_ones_own_has_not_the_licence_of_what_ships(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped config's licence and origins are of the shared data: of other labels they are left
    out, and told. What one wrote oneself stays."""
    labelled_palms(tmp_path / "data")
    shipped = read(Settings, CONFIG, data=tmp_path / "data", scenes=1)
    assert shipped.tells_of_the_shared_data
    prepare(shipped, tmp_path / "p")
    assert "left out" in " ".join(capsys.readouterr().err.split())
    told = manifest_of(shipped, tmp_path / "p", tmp_path / "m")
    assert (told["licence"], told["training_data"]) == ("", "")
    mine = shipped.model_copy(update={"training_data": "flights of ours", "licence": "CC0-1.0"})
    prepare(mine, tmp_path / "p")
    assert "left out" not in " ".join(capsys.readouterr().err.split())
    told = manifest_of(mine, tmp_path / "p", tmp_path / "n")
    assert (told["licence"], told["training_data"]) == ("CC0-1.0", "flights of ours")


def test_scenes_are_drawn_anew_when_their_code_is_another(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there was drawn by the code of that day; by the same code it stays."""
    config = Settings(**SMALL, data=tmp_path / "data")
    before = own.stat().st_ino
    prepare(config, own)
    assert own.stat().st_ino == before
    code = tmp_path / "scenes.py"
    code.write_text("# draws crowns of another kind")
    monkeypatch.setattr(scenes_code, "__file__", str(code))
    prepare(config, own)
    assert own.stat().st_ino != before


def test_neither_shared_data_nor_labels_is_told(tmp_path: Path) -> None:
    """A folder of something else is a sentence, and so is one without a COCO file."""
    with pytest.raises(UserError, match="neither palms/"):
        prepare(Settings(data=tmp_path), tmp_path / "p")
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match="no labels"):
        prepare(Settings(data=tmp_path), tmp_path / "p")


def changed(
    data: Path, change: Callable[[dict[str, Any]], object], split: str = "train"
) -> Settings:
    """Labelled palms with labels that were changed, and a config that names them."""
    labelled_palms(data)
    file = data / split / "labels.json"
    told = json.loads(file.read_text())
    change(told)
    file.write_text(json.dumps(told))
    return Settings(**SMALL, data=data)


def test_labels_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    """Without a box, or with one of no area: as if they were not there."""
    odd = [{"bbox": [3, 3, 0, 9]}, {"bbox": []}, {}]
    notes = [{"id": 90 + k, "image_id": 0, "category_id": 1, **o} for k, o in enumerate(odd)]
    one = changed(tmp_path / "one", lambda told: told["annotations"].extend(notes))
    prepare(one, tmp_path / "p1")
    labelled_palms(tmp_path / "two")
    prepare(Settings(**SMALL, data=tmp_path / "two"), tmp_path / "p2")
    assert Store(tmp_path / "p1").digest == Store(tmp_path / "p2").digest


def test_the_ground_of_a_crowd_teaches_nothing(tmp_path: Path) -> None:
    """A crowd is no palm and no background: its ground is black, and its labels are gone."""
    crowd = {"id": 99, "image_id": 0, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 100, 160]}
    prepare(changed(tmp_path / "d", lambda told: told["annotations"].append(crowd)), tmp_path / "p")
    tile = load(tmp_path / "p", "train")[0].tiles[0]
    middle = tile.pixels.shape[1] // 2
    assert not tile.pixels[:, : middle - 8].any()
    assert tile.pixels[:, middle + 8 :].any()
    assert 0 < len(tile.boxes) < 5
    assert ((tile.boxes[:, 0] + tile.boxes[:, 2]) / 2 >= middle - 1).all()


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("driver", ["PNG", "GTiff"])
def test_more_than_eight_bits_are_told(tmp_path: Path, driver: str, bands: int) -> None:
    """They would be cut off at 255, or lose all but their upper bytes, and a model learnt from white
    images, or from black ones."""
    labelled_palms(tmp_path)
    pixels = np.full((bands, 160, 200), 9000, np.uint16)
    more = {"photometric": "RGB", "interleave": "pixel"} if driver == "GTiff" and bands > 1 else {}
    with rasterio.open(
        tmp_path / "train" / "0.png", "w", driver=driver, width=200, height=160, count=bands,
        dtype="uint16", transform=rasterio.Affine.scale(2), **more,
    ) as out:  # fmt: skip
        out.write(pixels)
    with pytest.raises(UserError, match="8 bits"):
        prepare(Settings(**SMALL, data=tmp_path), tmp_path / "p")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_eight_bits_are_taken_whatever_they_are_called(tmp_path: Path, mode: str) -> None:
    """Grey, palettes and alpha; fewer bits as well."""
    labelled_palms(tmp_path)
    Image.new("RGB", (200, 160), "white").convert(mode).save(tmp_path / "train" / "0.png")
    prepare(Settings(**SMALL, data=tmp_path), tmp_path / "p")
    assert (load(tmp_path / "p", "train")[0].tiles[0].pixels >= 250).all()


@pytest.mark.parametrize("labels", [5, 0])
def test_labels_of_another_size_are_told(tmp_path: Path, labels: int) -> None:
    """Images that were made smaller since: boxes would lie elsewhere. Sizes that are not told are as
    they are."""
    entry = {5: 0, 0: 2}[labels]
    other = changed(
        tmp_path / "a", lambda told: told["images"][entry].update(width=400, height=320)
    )
    with pytest.raises(UserError, match=r"200×160 pixels.*for 400×320"):
        prepare(other, tmp_path / "p")
    none = changed(tmp_path / "b", lambda told: told["images"][entry].pop("width"))
    prepare(none, tmp_path / "p")


@pytest.mark.parametrize("name", ["0.jpg", "0.tif"])
def test_images_that_are_shown_turned_are_told(tmp_path: Path, name: str) -> None:
    """Whoever labels sees them turned, Frond never turns them. What EXIF does not turn is taken."""
    config = changed(tmp_path, lambda told: told["images"][0].update(file_name=name))
    image = Image.new("RGB", (200, 160))
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / "train" / name, exif=exif)
        if 2 <= orientation <= 8:
            with pytest.raises(UserError, match="turned"):
                prepare(config, tmp_path / "p")
        else:
            prepare(config, tmp_path / "p")


def test_an_image_that_would_become_huge_is_told(tmp_path: Path) -> None:
    """Boxes of a fifth of a pixel would make 60,000 columns of 200."""

    def tiny(told: dict[str, Any]) -> None:
        for note in told["annotations"]:
            note["bbox"][2:] = [0.2, 0.2]

    with pytest.raises(UserError, match="too small"):
        prepare(changed(tmp_path / "d", tiny), tmp_path / "p")


def test_an_image_in_two_files_of_labels_is_told(tmp_path: Path) -> None:
    """A draft left beside the labels: its images without labels would teach that palms are none. Two
    files of two flights are taken."""
    labelled_palms(tmp_path / "a")
    here = tmp_path / "a" / "train"
    draft = json.loads((here / "labels.json").read_text())
    (here / "drafts").mkdir()
    for image in draft["images"]:
        image["file_name"] = f"../{image['file_name']}"
    (here / "drafts" / "1.json").write_text(json.dumps({**draft, "annotations": []}))
    with pytest.raises(UserError, match=r"drafts/1\.json.*Leave one"):
        prepare(Settings(**SMALL, data=tmp_path / "a"), tmp_path / "p")
    shutil.rmtree(here / "drafts")
    labelled_palms(tmp_path / "b", first=50)
    (tmp_path / "b" / "train").rename(here / "b")
    prepare(Settings(**SMALL, data=tmp_path / "a"), tmp_path / "p")
    assert [p.name for p in load(tmp_path / "p", "train")] == ["b/labels", "labels"]


@pytest.mark.parametrize("entry", [0, 2])
def test_an_image_to_learn_from_and_to_judge_by_is_told(tmp_path: Path, entry: int) -> None:
    """With labels or without, by whatever name; what only has the same size is another image."""
    labelled_palms(tmp_path)
    shutil.copy(tmp_path / "train" / f"{entry}.png", tmp_path / "val" / "0.png")
    with pytest.raises(UserError, match=rf"train/{entry}\.png and .*val/0\.png are the same"):
        prepare(Settings(**SMALL, data=tmp_path), tmp_path / "p")
    for n, split in enumerate(("train", "val")):
        Image.new("L", (200, 160), 7 + n).save(tmp_path / split / "0.tif")
        file = tmp_path / split / "labels.json"
        told = json.loads(file.read_text())
        told["images"][0]["file_name"] = "0.tif"
        file.write_text(json.dumps(told))
    prepare(Settings(**SMALL, data=tmp_path), tmp_path / "p")


def test_labels_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """Labels without categories; an image elsewhere."""
    with pytest.raises(UserError, match="no categories"):
        prepare(changed(tmp_path / "a", lambda told: told.pop("categories")), tmp_path / "p")
    elsewhere = changed(
        tmp_path / "b", lambda told: told["images"][0].update(file_name="/etc/hostname")
    )
    with pytest.raises(UserError, match="lies outside"):
        prepare(elsewhere, tmp_path / "p")


def test_shares_that_leave_none_for_palms(tmp_path: Path) -> None:
    """Are told; no drawn scenes at all are none of a batch."""
    with pytest.raises(ValueError, match="no share"):
        Settings(background=0.5, drawn=0.5)
    config = changed(tmp_path / "d", lambda told: told).model_copy(update={"drawn": 0.0})
    prepare(config, tmp_path / "p")
    sampler = Sampler(
        load(tmp_path / "p", "train"), load(tmp_path / "p", "background"),
        load(tmp_path / "p", "drawn"), background=0.2, drawn=0.0, mixed=0.2,
        ironwork=0.2,
    )  # fmt: skip
    assert sampler.batch(7, 0, 2)[0].shape == (2, CROP, CROP, 3)


def test_a_batch_is_a_function_of_seed_and_step(own: Path) -> None:
    """Made twice, or by another sampler, it is the same; another seed or step gives another."""

    def sampler() -> Sampler:
        return Sampler(
            load(own, "train"), load(own, "background"), load(own, "drawn"),
            background=0.2, drawn=0.1, mixed=0.2, ironwork=0.5,
        )  # fmt: skip

    one = sampler()
    one.batch(7, 0, 2)
    pixels, target = one.batch(7, 3, 2)
    again, target_again = sampler().batch(7, 3, 2)
    assert pixels.shape == (2, CROP, CROP, 3)
    assert np.array_equal(pixels, again)
    assert np.array_equal(target, target_again)
    assert not np.array_equal(pixels, one.batch(7, 4, 2)[0])
    assert not np.array_equal(pixels, one.batch(8, 3, 2)[0])


def test_bars_are_drawn_over_background_alone(own: Path) -> None:
    """Crops without a palm get them, the others never; what is to be learnt stays the same."""

    def batch(background: float, ironwork: float) -> tuple[np.ndarray, np.ndarray]:
        sampler = Sampler(
            load(own, "train"), load(own, "background"), load(own, "drawn"),
            background=background, drawn=0.0, mixed=0.0, ironwork=ironwork,
        )  # fmt: skip
        return sampler.batch(7, 0, 4)

    plain, target = batch(0.999, 0.0)
    barred, same = batch(0.999, 1.0)
    assert (plain != barred).any(axis=(1, 2, 3)).all()
    assert not target[:, [0, 2]].any()
    assert not same[:, [0, 2]].any()
    palms, with_palms = batch(0.0, 0.0), batch(0.0, 1.0)
    assert np.array_equal(palms[0], with_palms[0])
    assert np.array_equal(palms[1], with_palms[1])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("height", "width"), [(1, 1), (90, 7), (256, 256)])
def test_ironwork_is_grey_and_of_the_seed(seed: int, height: int, width: int) -> None:
    """Of any size: what is drawn is a colour without a hue, the rest is as it was, and the same
    seed draws the same."""
    ground = np.zeros((height, width, 3), np.uint8)
    one, other = (ironwork(ground, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one, other)
    assert one.shape == ground.shape
    assert not ground.any()
    assert (np.ptp(one.astype(int), axis=-1) <= 36).all()
    assert len(np.unique(one.reshape(-1, 3), axis=0)) <= 2


def test_results_are_read_by_image() -> None:
    """Whatever their order and ids; the best first; an image without a find has none."""
    coco = {
        "images": [{"id": 7, "file_name": "b.tif"}, {"id": 3, "file_name": "up/a.tif"}],
        "annotations": [
            {"image_id": 3, "bbox": [1, 2, 10, 20], "score": 0.5},
            {"image_id": 3, "bbox": [5, 6, 30, 40], "score": 0.9},
        ],
    }
    a, b = found_in(coco, ["a.tif", "b.tif"])
    assert a.tolist() == [[5, 6, 35, 46, 0.9], [1, 2, 11, 22, 0.5]]
    assert b.shape == (0, 5)
    with pytest.raises(KeyError):
        found_in(coco, ["c.tif"])


def boxes(*corners: tuple[float, float]) -> np.ndarray:
    return np.array([[x, y, x + 60, y + 60] for x, y in corners], np.float32).reshape(-1, 4)


def finds(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array([[x, y, x + 60, y + 60, s] for x, y, s in rows]).reshape(-1, 5)


def test_figures_by_hand() -> None:
    """Two of three found, one find of nothing; what has its centre in the band does not count."""
    part = Part("p", [Tile("t", PIXELS, boxes((0, 0), (100, 50), (200, 100)))])
    seen = [finds((2, 0, 0.9), (110, 50, 0.8), (40, 130, 0.7), (200, 100, 0.2))]
    told = judged(part, seen, 0.5, 0)
    assert (told["precision"], told["recall"], told["count_error"]) == (0.6667, 0.6667, 0.0)
    # the label at (0, 0) and its find, centres at 30 and 32, lie in a band of 35 pixels
    banded = judged(part, seen, 0.5, 35)
    assert (banded["precision"], banded["recall"]) == (0.5, 0.5)
    assert judged(part, [finds()], 0.5, 0)["f1"] == 0


def test_other_scales_are_judged_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the next tile is in memory beside one; the figures are those of all at once."""
    tiles = []
    for seed in range(4):
        pixels, boxes = palm_scene(300, 400, 9, seed, GSD_M)
        tiles.append(Tile(f"{seed}.png", pixels, boxes.astype(np.float32)))
    part = Part("drawn", tiles)
    monkeypatch.setattr(evaluate, "load", lambda _, role: [part] if role.startswith("val") else [])
    predict = onnx_predictor(MODEL / "model.onnx", threads=1)

    def whole(k: float) -> dict[str, float]:
        every = list(rescaled(part, k))
        found = [detect(predict, t.pixels) for t in every]
        return judged(Part("", every), found, 0.3, round(evaluate.BORDER * k))

    twice: list[weakref.ref[np.ndarray]] = []

    def watched(predict: Predict, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape == (600, 800, 3):
            twice.append(weakref.ref(pixels))
            assert sum(r() is not None for r in twice) <= 2
        return detect(predict, pixels)

    monkeypatch.setattr(evaluate, "detect", watched)
    told = evaluate.figures(Path(), predict, 0.3, scenes=1)["scale off"]
    assert told == {f"drawn ×{k}": whole(k) for k in (0.5, 0.7, 1.4, 2.0)}
    assert len(twice) == 4 and told["drawn ×2.0"]["f1"] > 0.5


def test_a_crown_that_the_edge_cuts_keeps_its_centre() -> None:
    """A find's box as the model sees it reaches beyond the image; as a service tells it, it ends there."""
    tall, wide = 100, 200
    heat, size = np.zeros((1, 128, 128), np.float32), np.full((2, 128, 128), 60, np.float32)
    heat[0, 5, 20] = heat[0, 20, 30] = 0.9
    maps = (heat[None], size[None], np.zeros((1, 2, 128, 128), np.float32))
    pixels = np.zeros((tall, wide, 3), np.uint8)
    whole, cut = detect_whole(lambda _: maps, pixels), detect(lambda _: maps, pixels)
    assert whole[:, :4].tolist() == [[50, -10, 110, 50], [90, 50, 150, 110]]
    assert cut[:, :4].tolist() == [[50, 0, 110, 50], [90, 50, 150, 100]]


def test_background_has_a_say_in_the_threshold() -> None:
    """Finds where there is no palm move the bar above them."""
    palms = Part("p", [Tile("t", PIXELS, boxes((100, 50), (200, 100)))])
    free = Part("f", [Tile("t", PIXELS, boxes())])
    seen = [finds((100, 50, 0.9), (200, 100, 0.45))]
    assert chosen_threshold([(palms, seen)]) == (0.1, 1.0)
    noise = [finds(*((5.0 * k, 10, 0.3) for k in range(8)))]
    assert chosen_threshold([(palms, seen), (free, noise)]) == (0.31, 1.0)


def test_a_trained_model_says_how_large_its_palms_are(tmp_path: Path) -> None:
    """At its own scale, so that images without one can be given theirs."""
    write_manifest(tmp_path, Settings(), None)
    manifest = parse_manifest((tmp_path / "model.yaml").read_bytes())
    assert (manifest.gsd_m, manifest.object_px) == (GSD_M, CROWN_PX)


def test_scales_are_measured_as_jobs_would_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images at half the scale are told to be so, and their palms found; one of few palms is not."""
    tiles = []
    for seed, palms in ((1, 25), (2, 28), (3, 2)):
        pixels, boxes = palm_scene(400, 400, palms, seed, GSD_M)
        tiles.append(Tile(f"{seed}.png", pixels, boxes.astype(np.float32)))
    monkeypatch.setattr(scales, "load", lambda *_: [Part("drawn", tiles)])
    monkeypatch.setattr(scales, "SCALES", (1.0, 0.5))
    rows = scales.measure(Path(), MODEL)
    assert [(r.scale, r.images) for r in rows] == [(1.0, 3), (0.5, 3)]
    for row in rows:
        assert row.ratios == pytest.approx([1, 1], rel=0.2)
        assert row.estimated["f1"] > 0.9
    assert scales.tables(rows).count("2 of 3") == 2


@pytest.mark.parametrize("reach", [0.4, 0.7, 1.0])
def test_by_their_spacing_palms_have_one_scale_and_one_extent(reach: float) -> None:
    """Whatever part of a crown the labels box: of a stand whose palms are 42 px apart, 40 px are a
    crown, and the tile is brought to the scale at which that is 60."""
    rows, columns = np.mgrid[0:5, 0:5] * 42.0 + 40
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    boxes = np.concatenate([centres - 20 * reach, centres + 20 * reach], axis=1).astype(np.float32)
    few = Tile("few", PIXELS, boxes[:5])
    part = Part("p", [Tile("t", PIXELS, boxes), few])
    (tile,) = spaced(part)
    k = CROWN_PX * SPACING / 42
    assert tile.pixels.shape == (round(200 * k), round(300 * k), 3)
    assert tile.boxes[:, 2] - tile.boxes[:, 0] == pytest.approx(np.full(25, CROWN_PX))
    assert (tile.boxes[:, :2] + tile.boxes[:, 2:]) / 2 == pytest.approx(centres * k, abs=1e-3)
