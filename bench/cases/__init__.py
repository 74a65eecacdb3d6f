"""One module a benchmark: ``run(rounds, quick)`` gives results.json lines and a section."""
