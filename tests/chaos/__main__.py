"""``python -m chaos``."""

from chaos.runner import main

main()
