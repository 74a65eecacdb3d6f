"""How good a model is on anybody's labels: AP, F1, counts, IoU, confusion, a sweep of thresholds."""

from frond.evaluation.dataset import Dataset, LabelledImage, Labels, load
from frond.evaluation.evaluate import OnProgress, Options, evaluate
from frond.evaluation.report import as_text, write
from frond.evaluation.tables import Table, sentences, tables

__all__ = [
    "Dataset",
    "LabelledImage",
    "Labels",
    "OnProgress",
    "Options",
    "Table",
    "as_text",
    "evaluate",
    "load",
    "sentences",
    "tables",
    "write",
]
