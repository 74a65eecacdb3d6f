"""Each estate left out in its turn: what the detector is worth where nothing was learnt.

    python -m frond.training.palm.estates --config training/configs/palm.yaml --steps 1500

Every run learns from all labelled palms but one estate's and is judged on that one by its last
(averaged) weights. Its threshold is the best on what it learnt from and on palm-free imagery: the
estate chooses nothing. Runs that the file of figures has already are not done again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from frond.contracts.errors import UserError
from frond.training import comparison
from frond.training.comparison import Comparison
from frond.training.config import TrainingFailed, bad, read
from frond.training.palm.config import Settings
from frond.training.palm.data import Part, Parts, prepare, thinned
from frond.training.palm.detect import detect
from frond.training.palm.evaluate import BORDER, chosen_threshold, false_per_megapixel, judged
from frond.training.run import locked

# labels made by a detector; three images
_LEARNT_ALONE: Final = ("kluang", "misc")


def run(config: Settings, prepared: Path, estate: str, digest: str, folder: Path) -> dict[str, Any]:
    """One detector trained and judged."""
    from frond.training.loop import train  # torch
    from frond.training.palm.task import PalmTask, predictor

    folder.mkdir(parents=True, exist_ok=True)
    parts = without(Parts.of(prepared), estate)
    task = PalmTask(config, parts)
    trained = train(task, config, digest, folder / "checkpoint.pt", resume=True)
    predict = predictor(trained.model)
    seen = thinned(parts.train, config.validation_megapixels)
    free = [(p, [detect(predict, t.pixels) for t in p.tiles]) for p in parts.free]
    bar, _ = chosen_threshold(
        [(p, [detect(predict, t.pixels) for t in p.tiles]) for p in seen] + free
    )
    parted = []
    for part in parts.val:
        found = [detect(predict, t.pixels) for t in part.tiles]
        told = judged(part, found, bar, BORDER)
        if not all(t.sizes for t in part.tiles):
            del told["ap50"]
        parted.append({"part": part.name, "tiles": len(part.tiles), **told})
    return {
        "steps": trained.steps, "threshold": bar, "parts": parted,
        "false": {p.name: false_per_megapixel(p, f, bar) for p, f in free},
    }  # fmt: skip


def without(parts: Parts, estate: str) -> Parts:
    """All labelled palms but the estate's are learnt from; the estate alone is judged by.

    Parts that are there to judge by weigh as much as those learnt from do on average.
    """
    usual = sum(p.weight for p in parts.train) / max(1, len(parts.train))
    every = [*parts.train, *(replace(p, weight=p.weight or usual) for p in parts.val)]
    return replace(
        parts,
        train=[p for p in every if estate_of(p) != estate],
        val=[p for p in every if estate_of(p) == estate],
    )


def estate_of(part: Part) -> str:
    """Flights of one place are one estate."""
    return part.name.partition("/")[0]


def compare(
    config: Settings, folder: Path, seeds: Sequence[int], chosen: Sequence[str]
) -> Comparison:
    """Leave out each of these estates, with each seed; empty: each of all.

    Raises:
        UserError: there is no such estate, or the data cannot be used.
    """
    found = Comparison(folder)
    if config.prepared is None:
        # beside the comparison: a training that prepares its own anew must not change these
        config = config.model_copy(update={"prepared": folder / "prepared"})
    digest = prepare(config, config.prepared_folder)
    parts = Parts.of(config.prepared_folder)
    there = sorted({estate_of(p) for p in [*parts.train, *parts.val]})
    if unknown := sorted(set(chosen) - set(there)):
        raise bad(f"There is no estate {unknown[0]} to leave out; there are {', '.join(there)}.")
    if len(there) < 2:
        raise bad(
            f"There is one estate alone, {there[0]}: without it nothing is left to learn from."
        )
    for seed in seeds or [config.seed]:
        mine = config.model_copy(update={"seed": seed, "validate_every": 0, "patience": 0})
        for estate in chosen or [e for e in there if e not in _LEARNT_ALONE]:
            name, place = f"{estate} {seed}", config.prepared_folder
            if found.run(name, mine, digest, run, place, estate, estate=estate):
                print(table(found), flush=True)
    return found


def table(found: Comparison) -> str:
    """The runs' figures, as Markdown."""
    head = [
        "left out", "tiles", "steps", "seed", "threshold", "centre F1", "precision", "recall",
        "count error", "AP50", "false finds a megapixel, worst",
    ]  # fmt: skip
    rows = []
    for told in found.runs.values():
        for part in told["parts"]:
            rows.append([
                part["part"], str(part["tiles"]), str(told["steps"]), str(told["seed"]),
                f"{told['threshold']:.2f}", *(f"{part[k]:.3f}" for k in ("f1", "precision", "recall")),
                f"{part['count_error']:+.1%}",
                f"{part['ap50']:.3f}" if "ap50" in part else "–",
                f"{max(told['false'].values()):.2f}" if told["false"] else "–",
            ])  # fmt: skip
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
    parser.add_argument("--out", type=Path, default=Path("training/runs/palm-estates"))
    parser.add_argument("--minutes", type=float, help="for each run; else the config's steps")
    parser.add_argument("--steps", type=int, help="for each run")
    parser.add_argument(
        "--seed", type=int, action="append", default=[], help="several are several runs"
    )
    parser.add_argument("--estate", action="append", default=[], help="to leave out; else each")
    args = parser.parse_args()
    config = read(Settings, args.config, data=args.data, minutes=args.minutes, steps=args.steps)
    with locked(args.out):
        print(table(compare(config, args.out, args.seed, args.estate)))


if __name__ == "__main__":
    main()
