"""``python -m frond.training``."""

from frond.training.cli import main

if __name__ == "__main__":
    main()
