"""`python -m groupwise` is `groupwise`."""

import sys

from groupwise.cli.start import start

sys.exit(start())
