"""``python -m phicalc.cli``."""

import sys

from phicalc.cli import main

if __name__ == "__main__":
    sys.exit(main())
