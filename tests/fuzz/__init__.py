"""Coverage-guided fuzzing of everything that reads bytes which somebody else wrote.

``PYTHONPATH=tests python -m fuzz TARGET --seconds 60`` runs one target (needs atheris); the inputs
under ``corpus/`` are replayed in every ``make test``. See README.md.
"""
