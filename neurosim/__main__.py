"""`python -m neurosim` is the command `neurosim`; torchrun starts it by this name."""

import sys

from neurosim.cli import main

sys.exit(main())
