"""One module a benchmark: ``run()`` gives results.json lines and a table, case by case; ``ABOUT`` is
its prose. ``OWN``: packages whose versions it tells, where it runs in Frond's environment alone."""
