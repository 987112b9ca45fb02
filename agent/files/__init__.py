# SPDX-License-Identifier: GPL-2.0-or-later
"""Files: the UCI store, configuration, state, paths that users name, and watches on files and mounts."""
