"""The contenders' environment, made when it is not there; the machine and the versions."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from harness import BENCH_PYTHON, ROOT

_LOCK = ROOT / "bench" / "requirements.txt"
_MEASURED = ("sahi", "supervision", "geodeep", "numba", "numpy", "onnxruntime", "rasterio", "scipy")


def prepare() -> None:
    """Install bench/requirements.txt into .frond/bench-venv, once a version of that file."""
    home = BENCH_PYTHON.parent.parent
    stamp, wanted = home / "frond-bench", hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    uv = str(Path(sys.prefix) / "bin" / "uv")
    env = os.environ | {"UV_SYSTEM_CERTS": os.environ.get("UV_SYSTEM_CERTS", "1")}
    print("Installing what Frond is measured against …", flush=True)
    for command in (
        ["venv", "--quiet", "--clear", "--python", sys.executable, str(home)],
        # no dependency but those listed: SAHI's opencv-python is there as its headless build
        ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python",
         str(BENCH_PYTHON), "-r", str(_LOCK)],
    ):  # fmt: skip
        subprocess.run([uv, *command], check=True, env=env)
    stamp.write_text(wanted)


def versions() -> dict[str, str]:
    """Of what was measured; Frond runs on the same numpy, rasterio and ONNX Runtime."""
    code = (
        "import sys;from importlib.metadata import version\n"
        "for p in sys.argv[1:]: print(p, version(p))"
    )
    said = subprocess.run(
        [BENCH_PYTHON, "-c", code, *_MEASURED], check=True, capture_output=True, text=True
    ).stdout
    found = dict(line.split() for line in said.splitlines())
    for name in ("numpy", "onnxruntime", "rasterio"):
        if version(name) != found[name]:
            found[f"{name} (Frond's)"] = version(name)
    return {"python": platform.python_version(), **found}


def own_versions(packages: Sequence[str]) -> dict[str, str]:
    """Of packages in Frond's own environment."""
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "?")
    total = next(
        int(x.split()[1]) for x in Path("/proc/meminfo").read_text().splitlines()
        if x.startswith("MemTotal")
    )  # fmt: skip
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores ({model}), {total / 2**20:.0f} GB, Linux {platform.release()}; "
        f"load {load:.1f} when the run began"
    )


def settings() -> dict[str, str]:
    """What the environment says of how to measure; where the results go changes none of them."""
    return {
        k: v for k, v in sorted(os.environ.items())
        if k.startswith("BENCH_") and k != "BENCH_OUT" and v
    }  # fmt: skip


def commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return said.stdout.strip() or "unknown"
