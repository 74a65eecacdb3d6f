"""``dvc repro`` redoes a stage when its code has changed: dvc.yaml names all that decides what comes of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from frond.training import kinds

TRAINING = Path(__file__).parents[1]
CODE = Path("src/frond/training")

# how files are written and where it is, not what is in them
PLUMBING = {"files.py", "progress.py"}


def imported(file: Path) -> Iterator[Path]:
    """What of training a file imports, wherever it does, but for types alone."""
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
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        todo += ast.iter_child_nodes(node)
    for name in names:
        found = Path("src", *name.split(".")).with_suffix(".py")
        if name.startswith("frond.training.") and (TRAINING / found).is_file():
            yield found


def used(*files: str) -> set[str]:
    """These files and all that they come to import."""
    todo, seen = [CODE / f for f in files], set[Path]()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += imported(file)
    return {str(f.relative_to(CODE)) for f in seen} - PLUMBING


def test_imports_are_found() -> None:
    """Those inside of functions and of other kinds too."""
    found = used("landcover/task.py")
    assert {"palm/augment.py", "landcover/config.py", "config.py"} <= found
    assert "loop.py" in used("run.py")


@pytest.mark.parametrize("kind", kinds.KINDS)
@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate"])
def test_a_stage_depends_on_the_code_that_it_uses(stage: str, kind: str) -> None:
    """On each file of training's, and on no other one: training again takes hours."""
    wanted = {
        "prepare": lambda: used(f"{kind}/data.py"),
        # the card, the manifest and what drift is measured against are written anew by evaluate
        "train": lambda: (
            used("loop.py", f"{kind}/task.py") - {"card.py", f"{kind}/card.py", "reference.py"}
        ),
        "evaluate": lambda: used(f"{kind}/evaluate.py"),
    }[stage]()
    deps = yaml.safe_load((TRAINING / "dvc.yaml").read_text())["stages"][f"{stage}-{kind}"]["deps"]
    code = {d.removeprefix(f"{CODE}/") for d in deps if d.startswith("src/")}
    assert sorted(code) == sorted(wanted)
