# SPDX-License-Identifier: GPL-2.0-or-later
"""What Docker networks and ports require of the router: firewall, zones, reachability, subnets. Pure."""
