"""Tests of training: in .venv those that need no torch, in training's environment all but ``stack``."""

import importlib.util
import sys
from pathlib import Path

# helpers beside the tests
sys.path.insert(0, str(Path(__file__).parent))

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)
