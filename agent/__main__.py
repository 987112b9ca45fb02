# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m agent`."""

import sys

from agent.cli.main import main

sys.exit(main())
