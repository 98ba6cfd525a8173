"""`python -m neurosim` is the command `neurosim`; torchrun starts it by this name."""

import sys

from neurosim.cli import main

if __name__ == "__main__":
    sys.exit(main())
