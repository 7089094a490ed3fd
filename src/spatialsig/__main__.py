"""``python -m spatialsig`` is ``spatialsig``."""

from spatialsig.cli import main

if __name__ == "__main__":
    main()
