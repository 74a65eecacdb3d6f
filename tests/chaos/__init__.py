"""The chaos program: the real stack under attack, and a ledger outside it that must come out even.

``PYTHONPATH=tests python -m chaos``, or ``make chaos``.
"""
