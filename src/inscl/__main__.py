"""`python -m inscl` is `inscl`."""

import sys

from inscl.cli import main

sys.exit(main())
