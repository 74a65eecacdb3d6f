"""Stands for ``python -m frond.training``: a process that counts instead of learning, and pushes a
real version. What it does is in its config, a JSON object; each of its lives is a line in LIVES.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path


async def push(folder: Path, name: str, version: str, alias: str) -> dict[str, str]:
    # as a real one: what takes long to import comes when it is needed
    from frond.models.registry import Registry
    from frond.models.testing import blob_model
    from frond.store import ObjectStore, StoreSettings

    blob_model(folder, name=name, version=version)
    e = os.environ
    store = ObjectStore(
        StoreSettings(
            e["FROND_S3_ENDPOINT"], e["FROND_S3_ACCESS_KEY"], e["FROND_S3_SECRET_KEY"],
            e["FROND_S3_BUCKET"],
        )
    )  # fmt: skip
    ref = await Registry(store).push(folder, alias, who="training", why="trained")
    store.close()
    return dict(ref.model_dump())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", choices=["palm", "landcover"])
    for name in ("config", "data", "run", "out", "push", "progress-file"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--or-anew", action="store_true")
    args = parser.parse_args()
    wanted = json.loads(Path(args.config).read_text())
    checkpoint = Path("checkpoint")
    first = int(checkpoint.read_text()) if args.resume and checkpoint.exists() else 0
    life = {"pid": os.getpid(), "resume": args.resume, "first": first}
    with Path(wanted["lives"]).open("a") as lives:
        lives.write(json.dumps(life) + "\n")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if wanted.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for step in range(first + 1, args.steps + 1):
        time.sleep(wanted.get("pause", 0.02))
        if step == wanted.get("fails_at"):
            sys.exit("The disk is full.")
        if step == wanted.get("dies_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.write_text(str(step))
        told = {"step": step, "steps": args.steps, "metrics": {"loss": 1 / step}}
        Path(args.progress_file).write_text(json.dumps(told))
        if step == wanted.get("waits_at"):
            signal.sigwait({signal.SIGUSR1})
    if wanted.get("away"):
        sys.stderr.write("The store is away.\n")
        sys.exit(75)
    ref = asyncio.run(
        push(Path(args.out), wanted["name"] or wanted["pushes"], str(args.seed), args.push)
    )
    if wanted.get("lies"):
        ref["digest"] = "0" * 64
    sys.stdout.write("on the way out\n")
    told = {"model": ref["name"], "digest": ref["digest"], "version": ref["version"]}
    sys.stdout.write(json.dumps({**told, "alias": args.push, "metrics": {"score": 0.9}}) + "\n")


if __name__ == "__main__":
    main()
