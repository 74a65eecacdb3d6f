"""A scenario's course as a picture: images done over time, a tick for each kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

_COLOURS: Final = {
    "kafka": "#d62728", "minio": "#1f77b4", "ingest": "#8c8c8c", "tiler": "#2ca02c",
    "inference": "#9467bd", "aggregator": "#ff7f0e", "notifier": "#17becf",
}  # fmt: skip


def kills_of(journal: Path) -> list[tuple[float, str]]:
    """When (seconds of the epoch) which service was killed, by the oracle's journal."""
    found = []
    for line in journal.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["what"] == "kill":
            head, _, number = entry["name"].rpartition("-")
            found.append((entry["at"], head if number.isdigit() else entry["name"]))
    return found


def course(path: Path, samples: list[tuple[float, int]], kills: list[tuple[float, str]]) -> None:
    """Write the picture as SVG.

    Args:
        samples: seconds of the epoch, images done until then.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "chaos"
    from matplotlib import pyplot as plt

    began = samples[0][0]
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    axes.plot([t - began for t, _ in samples], [n for _, n in samples], color="#333333", lw=1.4)
    top = max(n for _, n in samples) or 1
    for service, colour in _COLOURS.items():
        times = [t - began for t, name in kills if name == service]
        if times:
            axes.vlines(
                times, -0.08 * top, 0, color=colour, lw=1.2, label=f"{service} {len(times)}"
            )
    axes.set_xlabel("seconds")
    axes.set_ylabel("images done")
    axes.legend(title="SIGKILL", fontsize=7, title_fontsize=7, loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # matplotlib ends lines with spaces
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
