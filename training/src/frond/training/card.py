"""What people and services read of any kind's model: MODEL_CARD.md and model.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from frond.training.config import Config

BEGIN: Final = "<!-- figures: written by frond train -->"
END: Final = "<!-- /figures -->"
_BEGIN: Final = re.compile(r"<!-- figures: [^>]*-->")


def write_manifest(
    folder: Path, config: Config, task: str, graph: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """Write model.yaml; what is None is left out.

    Args:
        graph: what its kind knows of the graph: decoder, classes, input, thresholds.
        metrics: the main figures.
    """
    manifest: dict[str, Any] = {
        "name": config.name,
        "version": config.version,
        "task": task,
        "description": config.description,
        **graph,
        "licence": config.licence,
        "metrics": dict(metrics),
        "training_data": config.training_data,
    }
    told = {k: v for k, v in manifest.items() if v is not None}
    text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=96)
    (folder / "model.yaml").write_text(text, encoding="utf-8")


def write_card(folder: Path, config: Config, words: str, tables: str) -> None:
    """Put the figures between the card's two marks; the words around them stay.

    Args:
        words: what a card that is new says of the model.
        tables: the figures, as Markdown; empty before it was judged. None that another run of the same
            would not have, such as a time: the card is part of the version.
    """
    path = folder / "MODEL_CARD.md"
    text = path.read_text(encoding="utf-8") if path.exists() else _blank(config, words)
    begin = _BEGIN.search(text)
    head, rest = (text[: begin.start()], text[begin.end() :]) if begin else (f"{text}\n", END)
    tail = rest.partition(END)[2]
    path.write_text(f"{head}{BEGIN}\n{tables}\n{END}{tail}", encoding="utf-8")


def _blank(config: Config, words: str) -> str:
    return (
        f"# {config.name}\n\n{words}\n\n{BEGIN}\n{END}\n\n## Training data and licence\n\n"
        f"{config.training_data or 'Not said.'}\n\nLicence of the weights: "
        f"{config.licence or 'not said'}.\n"
    )
