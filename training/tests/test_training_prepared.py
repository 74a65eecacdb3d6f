"""Prepared data: made once, made anew when anything they come from changes, whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frond.contracts.errors import UserError
from frond.training.files import replaced
from frond.training.prepared import Store, prepared

Made = list[int]


def make(root: Path, folder: Path, made: Made, **recipe: Any) -> str:
    source = root / "a.txt"

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        made.append(1)
        yield "one", np.arange(6, dtype=np.int16).reshape(2, 3)
        yield "text", np.frombuffer(source.read_bytes(), np.uint8)
        yield "none", np.zeros((0, 4), np.float32)

    return prepared(folder, root, [source], recipe, arrays, lambda: {"n": len(made)})


def test_made_once_and_read_as_it_was(tmp_path: Path) -> None:
    """Asked again, nothing is made; arrays come back as they went in, and cannot be changed."""
    (tmp_path / "a.txt").write_text("abc")
    made: Made = []
    first = make(tmp_path, tmp_path / "p", made)
    assert make(tmp_path, tmp_path / "p", made) == first
    assert made == [1]
    store = Store(tmp_path / "p")
    assert store.digest == first
    assert store.array("one").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert store.array("text").tobytes() == b"abc"
    assert store.array("none").shape == (0, 4)
    with pytest.raises(ValueError, match="read-only"):
        store.array("one")[0, 0] = 9


def test_a_changed_source_or_recipe_makes_it_anew(tmp_path: Path) -> None:
    """One byte in a source, or one setting: another digest. The old bytes again: the old digest."""
    (tmp_path / "a.txt").write_text("abc")
    folder = tmp_path / "p"
    digests = []
    for text, seed in (("abc", 1), ("abd", 1), ("abc", 1), ("abc", 2)):
        (tmp_path / "a.txt").write_text(text)
        made: Made = []
        digests.append(make(tmp_path, folder, made, seed=seed))
        assert made == [1]
    assert digests[0] == digests[2] == digests[3] != digests[1]


def test_it_does_not_matter_where_data_lie(tmp_path: Path) -> None:
    """The same files in another folder are the same data."""
    digests = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("abc")
        digests.append(make(tmp_path / name, tmp_path / f"p{name}", []))
    assert digests[0] == digests[1]


def test_nothing_to_train_on_is_told(tmp_path: Path) -> None:
    """No sources, and no prepared data, are sentences."""
    with pytest.raises(UserError, match="nothing to train on"):
        prepared(tmp_path / "p", tmp_path, [], {}, lambda: iter(()))
    with pytest.raises(UserError, match="no prepared data"):
        Store(tmp_path / "p")


def test_a_replacement_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    """What was there stays, whatever happens while the new one is made, and nothing is left over."""
    folder = tmp_path / "m"
    with replaced(folder, "a") as fresh:
        (fresh / "a").write_text("old")
    with pytest.raises(RuntimeError), replaced(folder, "a") as fresh:
        (fresh / "a").write_text("new")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_replacement_cut_short_is_mended(tmp_path: Path) -> None:
    """Killed between the two renames: the next one finds the old folder again."""
    folder = tmp_path / "m"
    (tmp_path / ".m.new-old").mkdir()
    (tmp_path / ".m.new-old" / "a").write_text("old")
    (tmp_path / ".m.new-xyz").mkdir()
    with pytest.raises(RuntimeError), replaced(folder, "a"):
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    """What was not made here is not taken away, wherever somebody points; an empty folder may be."""
    (tmp_path / "mine").mkdir()
    with replaced(tmp_path / "mine", "a") as fresh:
        (fresh / "a").write_text("made")
    thesis = tmp_path / "home" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("all of it")
    with pytest.raises(UserError, match="would be lost"), replaced(thesis.parent, "a"):
        pass
    with pytest.raises(UserError, match="would be lost"):
        prepared(thesis.parent, thesis.parent, [thesis], {}, lambda: iter(()))
    assert thesis.read_text() == "all of it"


def test_sources_lie_beneath_their_folder(tmp_path: Path) -> None:
    """A label file that names an image elsewhere is a sentence."""
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="lies outside"):
        prepared(tmp_path / "p", tmp_path / "x", [Path(__file__)], {}, lambda: iter(()))
