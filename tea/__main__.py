"""`python -m tea`: the command line."""

import sys

from tea.cli import main

sys.exit(main())
