"""``dvc repro`` redoes a stage when its code has changed: dvc.yaml names all that decides what comes of it."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from frond.training import kinds

TRAINING = Path(__file__).parents[1]
CODE = Path("src/frond/training")

LIBS = Path("../libs")

# how files are written and where it is, not what is in them
PLUMBING = {"files.py", "progress.py"}
# of other members, what decides figures; how a model is run, their own tests hold to the same results
MEMBERS = {
    "evaluation": "frond.evaluation",
    "drift": "frond.drift",
    "client": "frond.client.scenes",
}


def source(name: str) -> Path | None:
    """The file of a module that counts, as dvc.yaml names it."""
    members = [m for m, at in MEMBERS.items() if f"{name}.".startswith(f"{at}.")]
    root = LIBS / members[0] / "src" if members else Path("src")
    found = root.joinpath(*name.split(".")).with_suffix(".py")
    counts = bool(members) or name.startswith("frond.training.")
    return found if counts and (TRAINING / found).is_file() else None


def defined_in(package: str, name: str) -> str:
    """Where a package has a name from that it hands on."""
    init = LIBS / package.rpartition(".")[2] / "src" / Path(*package.split(".")) / "__init__.py"
    if not (TRAINING / init).is_file():
        return f"{package}.{name}"
    for node in ast.parse((TRAINING / init).read_text()).body:
        if isinstance(node, ast.ImportFrom) and name in {a.name for a in node.names}:
            return str(node.module)
    return f"{package}.{name}"


def imported(file: Path) -> Iterator[Path]:
    """What counts of all that a file imports, wherever it does, but for types alone."""
    todo: list[ast.AST] = [ast.parse((TRAINING / file).read_text())]
    names: set[str] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{file} has a relative import"
            names |= {node.module, *(defined_in(node.module, a.name) for a in node.names)}
        todo += ast.iter_child_nodes(node)
    yield from filter(None, map(source, sorted(names)))


def used(*files: str) -> set[str]:
    """These files of training's and all that they come to import."""
    todo, seen = [CODE / f for f in files], set[Path]()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += imported(file)
    return {f.as_posix().removeprefix(f"{CODE}/") for f in seen} - PLUMBING


def test_imports_are_found() -> None:
    """Those inside of functions and of other kinds too."""
    found = used("landcover/task.py")
    assert {"palm/augment.py", "landcover/config.py", "config.py"} <= found
    assert "loop.py" in used("run.py")
    libs = {Path(f).name for f in used("landcover/evaluate.py") if f.startswith("../")}
    assert libs >= {"segmentation.py", "dataset.py", "reference.py"}


@pytest.mark.parametrize("kind", kinds.KINDS)
@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate"])
def test_a_stage_depends_on_the_code_that_it_uses(stage: str, kind: str) -> None:
    """On each file of training's, on those of other members that decide figures, and on no other one:
    training again takes hours."""
    # of it, training has the pair that finds are handed over in
    predict = "../libs/evaluation/src/frond/evaluation/predict.py"
    wanted = {
        "prepare": lambda: used(f"{kind}/data.py"),
        # the card, the manifest and what drift is measured against are written anew by evaluate
        "train": lambda: (
            {f for f in used("loop.py", f"{kind}/task.py") if "/drift/" not in f}
            - {"card.py", f"{kind}/card.py", "reference.py", predict}
        ),
        "evaluate": lambda: used(f"{kind}/evaluate.py"),
    }[stage]()
    deps = yaml.safe_load((TRAINING / "dvc.yaml").read_text())["stages"][f"{stage}-{kind}"]["deps"]
    code = {d.removeprefix(f"{CODE}/") for d in deps if d.startswith(("src/", "../libs/"))}
    assert sorted(code) == sorted(wanted)


def test_the_lock_is_of_the_files_that_are_here() -> None:
    """What ships was made by this code, or by code that differs in nothing that it decides: whoever
    changes a file runs its stages again (``make train-repro``), or says so (``dvc commit -f STAGE``)."""
    stages = yaml.safe_load((TRAINING / "dvc.lock").read_text())["stages"]
    locked = {
        (d["path"], d["md5"])
        for stage in stages.values()
        for d in stage["deps"]
        if d["path"].startswith(("src/", "../libs/", "configs/"))
    }
    assert len(locked) > 20
    here = {(path, md5(TRAINING / path)) for path, _ in locked}
    assert sorted(locked - here) == []


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
