"""Architectures compared on equal budgets, each scene held out in its turn.

    python -m frond.training.landcover.compare --config training/configs/landcover.yaml --steps 1200

Every run trains on all scenes but one and is judged on that one by its last (averaged) weights: the
held-out scene chooses neither when to stop nor anything else. Runs that the file of figures has
already are not done again, so that a comparison that was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from frond.contracts.errors import UserError
from frond.training import comparison
from frond.training.comparison import Comparison
from frond.training.config import TrainingFailed, read
from frond.training.landcover.config import ARCHITECTURES, CLASSES, Settings
from frond.training.landcover.data import prepare, scenes, split
from frond.training.prepared import Store
from frond.training.run import locked


def run(config: Settings, prepared: Path, digest: str, folder: Path) -> dict[str, Any]:
    """One network trained and judged."""
    from frond.training.landcover.task import make  # torch
    from frond.training.loop import train

    folder.mkdir(parents=True, exist_ok=True)
    trained = train(make(config, prepared), config, digest, folder / "checkpoint.pt", resume=True)
    weights = sum(p.numel() for p in trained.model.parameters())
    return {"metrics": trained.metrics, "steps": trained.steps, "weights": weights}


def compare(
    config: Settings, folder: Path, architectures: list[str], held_out: list[str]
) -> Comparison:
    """Train and judge each architecture without each of these scenes; empty: without each of all.

    Raises:
        UserError: there is no such scene, or the data cannot be used.
    """
    found = Comparison(folder)
    if config.prepared is None:
        # beside the comparison: a training that prepares its own anew must not change these
        config = config.model_copy(update={"prepared": folder / "prepared"})
    digest = prepare(config, config.prepared_folder)
    there = scenes(Store(config.prepared_folder))
    every = sorted(there)
    for scene in held_out:
        # now, not after hours of other runs
        split(without(config, "unet", scene), there)
    for scene in held_out or every:
        for architecture in architectures:
            mine = without(config, architecture, scene)
            if found.run(
                f"{architecture} {scene}", mine, digest, run, config.prepared_folder,
                architecture=architecture, scene=scene,
            ):  # fmt: skip
                print(table(found), flush=True)
    return found


def without(config: Settings, architecture: str, scene: str) -> Settings:
    """This config, judged on the scene alone and by its last weights, learning from all others."""
    # all of it is checked anew: a scene may be the file's test, which it is not here
    told = config.model_dump() | {
        "architecture": architecture, "validation": (scene,), "test": (),
        "validate_every": 0, "patience": 0,
    }  # fmt: skip
    return Settings.model_validate(told)


def table(found: Comparison) -> str:
    """The runs' IoU by class, as Markdown."""
    rows = []
    for told in found.runs.values():
        metrics = told["metrics"]
        by_class = [f"{metrics[f'iou_{c}']:.3f}" if f"iou_{c}" in metrics else "-" for c in CLASSES]
        rows.append([
            told["architecture"], f"{told['weights'] / 1e6:.1f} M", str(told["steps"]),
            told["scene"], *by_class, f"{metrics['iou']:.3f}", f"{metrics['dice']:.3f}",
        ])  # fmt: skip
    head = ["architecture", "weights", "steps", "held out", *CLASSES, "mean IoU", "mean Dice"]
    return comparison.table(head, rows)


def main() -> None:
    """The command. Exit code 2: what was asked for cannot be; 1: it did not work."""
    try:
        _main()
    except (UserError, TrainingFailed) as e:
        print(e.detail, file=sys.stderr)
        sys.exit(2 if isinstance(e, UserError) else 1)


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("training/runs/landcover-comparison"))
    parser.add_argument("--minutes", type=float, help="for each run; else the config's steps")
    parser.add_argument("--steps", type=int, help="for each run")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--architecture", choices=ARCHITECTURES, action="append", default=[])
    parser.add_argument("--scene", action="append", default=[], help="to hold out; else each")
    args = parser.parse_args()
    config = read(
        Settings,
        args.config,
        data=args.data,
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
    )
    chosen = args.architecture or list(ARCHITECTURES)
    with locked(args.out):
        print(table(compare(config, args.out, chosen, args.scene)))


if __name__ == "__main__":
    main()
