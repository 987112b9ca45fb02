# SPDX-License-Identifier: GPL-2.0-or-later
"""What dockerd's networks and ports need of the router: firewall, zones, reach, subnets. Pure."""
