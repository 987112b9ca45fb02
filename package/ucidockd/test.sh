#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The feed's CI runs it with the package's name and version, after it was installed.
[ "$1" != ucidockd ] || ucidockd --version | grep -F "$2"
