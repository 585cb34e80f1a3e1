"""`python -m dsr_fit`."""

import sys

from dsr_fit.cli.main import main

sys.exit(main())
