"""`python -m dsr_fit`."""

import sys

from dsr_fit.cli import main

sys.exit(main())
