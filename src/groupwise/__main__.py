"""`python -m groupwise` is `groupwise`."""

import sys

from groupwise.cli.main import main

sys.exit(main())
