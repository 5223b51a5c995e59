"""``python -m sb3_diayn.cli``."""

import sys

from sb3_diayn.cli import main

sys.exit(main())
