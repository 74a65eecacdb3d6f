"""Whether live windows look like what a model was trained on.

``frond.drift.reference`` runs models and is imported by those who do; the rest does not.
"""

from frond.drift.periods import Length, Periods
from frond.drift.sampling import Look, floor_of
from frond.drift.tally import Tally
from frond.drift.verdicts import compare, worst

__all__ = ["Length", "Look", "Periods", "Tally", "compare", "floor_of", "worst"]
