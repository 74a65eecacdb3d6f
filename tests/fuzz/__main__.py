"""``python -m fuzz TARGET [--seconds 60] [--seed 1] [--found DIR]``: one target under atheris.

Prints ``fuzz target=… execs=… bytes=… found=…`` last; exits 0 when nothing was found, 1 when an
input broke a law (it is in ``--found``), 77 where atheris is not installed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

SKIPPED = 77
_MOST = 16_384
_RSS_MB = 3000
_ONE_S = 25


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=Path(".fuzz-found"))
    parser.add_argument("--corpus", type=Path, help="a folder of inputs to begin with and add to")
    args = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print(f"fuzz target={args.target} skipped: atheris is not installed here")
        return SKIPPED
    with atheris.instrument_imports(include=["frond"]):
        from fuzz import laws, mutate, registry
    laws.quiet()
    if args.target not in registry.TARGETS:
        parser.error(f"there are: {', '.join(registry.TARGETS)}")
    return _fuzz(args, atheris, registry, mutate)


def _fuzz(args: argparse.Namespace, atheris: object, registry: object, mutate: object) -> int:
    target = registry.TARGETS[args.target]  # type: ignore[attr-defined]
    seeds = registry.seeds(args.target)  # type: ignore[attr-defined]
    structural = args.target in registry.OF_MESSAGES  # type: ignore[attr-defined]
    as_json = args.target in registry.OF_JSON  # type: ignore[attr-defined]
    count = [0, 0]
    until = time.monotonic() + args.seconds

    def one(data: bytes) -> None:
        count[0] += 1
        count[1] += len(data)
        if time.monotonic() > until:
            _end(args.target, count, 0)
        try:
            target(data)
        except BaseException as e:
            args.found.mkdir(parents=True, exist_ok=True)
            (args.found / f"{args.target}-{args.seed}").write_bytes(data)
            print(f"{args.target}: {type(e).__name__}: {e!s:.2000}", flush=True)
            _end(args.target, count, 1, e)

    def custom(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.25:
            return bytes(atheris.Mutate(data, most))  # type: ignore[attr-defined]
        prefix = data[:1] if args.target in ("readmodel", "objects") else b""
        body = data[len(prefix) :]
        if structural:
            cut = [s[len(prefix) :] for s in seeds]
            return prefix + mutate.mutate(rng, body, most - 1, cut)  # type: ignore[attr-defined]
        new = mutate.json_mutated(rng, body) or b""  # type: ignore[attr-defined]
        return prefix + new if len(new) < most else data

    # whatever is loaded at the first use is loaded now, outside any input's time
    for seed in seeds:
        target(seed)
    with tempfile.TemporaryDirectory(prefix="frond-fuzz-corpus-") as folder:
        corpus = args.corpus or Path(folder)
        corpus.mkdir(parents=True, exist_ok=True)
        for n, seed in enumerate(seeds):
            (corpus / f"seed-{n}").write_bytes(seed)
        kept = registry.CORPUS / args.target  # type: ignore[attr-defined]
        for path in sorted(kept.glob("*")) if kept.is_dir() else ():
            shutil.copy(path, corpus / path.name)
        watch = threading.Timer(args.seconds + 2 * _ONE_S, lambda: _end(args.target, count, 1))
        watch.daemon = True
        watch.start()
        argv = [
            sys.argv[0], f"-seed={args.seed}", f"-max_len={_MOST}", f"-rss_limit_mb={_RSS_MB}",
            f"-timeout={_ONE_S}", "-print_final_stats=0", "-verbosity=0",
            f"-artifact_prefix={args.found}/{args.target}-", str(corpus),
        ]  # fmt: skip
        args.found.mkdir(parents=True, exist_ok=True)
        more = {"custom_mutator": custom} if structural or as_json else {}
        atheris.Setup(argv, one, **more)  # type: ignore[attr-defined]
        atheris.Fuzz()  # type: ignore[attr-defined]
    return 0


def _end(target: str, count: list[int], found: int, error: BaseException | None = None) -> None:
    if error is not None:
        import traceback

        traceback.print_exception(error, limit=-12, file=sys.stdout)
    print(f"fuzz target={target} execs={count[0]} bytes={count[1]} found={found}", flush=True)
    # libFuzzer's own ways out leave threads and loops behind that would be waited for
    os._exit(1 if found else 0)


if __name__ == "__main__":
    sys.exit(main())
