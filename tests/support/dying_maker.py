# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaces `agent.tls.maker` and kills itself with SIGKILL, like the kernel's out-of-memory killer."""

import os
import signal
import sys

sys.stdin.read(100)
os.kill(os.getpid(), signal.SIGKILL)
