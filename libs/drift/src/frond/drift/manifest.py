"""A reference into ``model.yaml``: the rest of the file stays as it was written, its line ends too."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest, Reference
from frond.models import MANIFEST_FILE, parse_manifest

_SECTION: Final = "reference"
# from the field to the next line that begins with anything but a blank
_BLOCK: Final = re.compile(rf"^{_SECTION}:.*\n(?:[ \t].*\n|\r?\n)*", re.MULTILINE)
_WIDTH: Final = 110
_TOLD: Final = ["images", "windows", "windows_with_finds", "pixels", "found", "score"]


def write_reference(folder: Path, reference: Reference) -> bool:
    """Put a reference into a folder's manifest, in place of one that is there.

    Returns:
        Whether all else stayed as it was; False: the file had to be written anew, and its comments
        and order are gone.

    Raises:
        ModelRejected: the file is no manifest, or the reference is not of its bands.
    """
    path = folder / MANIFEST_FILE
    text = path.read_bytes().decode()
    wanted = _with(parse_manifest(text.encode()), reference)
    made = _edited(text, reference)
    kept = _reads_as(made, wanted)
    if not kept:
        plain = wanted.model_dump(mode="json", exclude_defaults=True, exclude={_SECTION})
        head = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=_WIDTH)
        made = (head + as_yaml(reference)).replace("\n", _line_end(text))
    # whoever is interrupted has the old file; hidden, so that it is no part of the folder
    draft = path.with_name(f".{MANIFEST_FILE}.{os.getpid()}")
    try:
        draft.write_bytes(made.encode())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return kept


def as_yaml(reference: Reference) -> str:
    """The section's text: some lines a histogram, not one a number."""
    told = reference.model_dump(mode="json")
    lines = [f"{_SECTION}:  # of the training data, by `frond models reference`"]
    lines += [f"  {name}: {told[name]}" for name in _TOLD if told[name] is not None]
    lines += ["  bands:", *(_row("    - ", counts) for counts in reference.bands)]
    lines += [_row("  scores: ", reference.scores)]
    return "\n".join(lines) + "\n"


def _row(before: str, counts: Sequence[int]) -> str:
    body = f"[{', '.join(map(str, counts))}]"
    return "\n".join(
        textwrap.wrap(
            body, _WIDTH, initial_indent=before, subsequent_indent=" " * (len(before) + 1)
        )
    )


def _edited(text: str, reference: Reference) -> str:
    end = _line_end(text)
    rest = _BLOCK.sub("", text if text.endswith("\n") else text + end)
    return rest.rstrip("\r\n") + ("\n\n" + as_yaml(reference)).replace("\n", end)


def _line_end(text: str) -> str:
    """As most of its lines end."""
    return "\r\n" if 2 * text.count("\r\n") > text.count("\n") else "\n"


def _with(manifest: ModelManifest, reference: Reference) -> ModelManifest:
    data = manifest.model_dump(mode="json") | {_SECTION: reference.model_dump(mode="json")}
    return ModelManifest.model_validate(data)


def _reads_as(text: str, wanted: ModelManifest) -> bool:
    try:
        return parse_manifest(text.encode()) == wanted
    except ModelRejected:
        return False
