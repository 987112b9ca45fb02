# SPDX-License-Identifier: GPL-2.0-or-later
"""Which network a name means."""

from __future__ import annotations

from itertools import permutations

import pytest

from agent.model.observed import ObservedNetwork, Record
from agent.plan.container.difference import network_ids

OURS = Record(kind="network", section="lan", nonce="n", name="lan", object_id="a")
NETWORKS = [ObservedNetwork(id=key, name=name) for key, name in (("a", "lan"), ("b", "lan"), ("c", "dmz"))]


@pytest.mark.parametrize("networks", list(permutations(NETWORKS)))
def test_of_two_networks_of_one_name_ours_is_meant_in_whatever_order_they_are_listed(
    networks: tuple[ObservedNetwork, ...],
) -> None:
    assert network_ids(networks, [OURS]) == {"lan": "a", "dmz": "c"}


@pytest.mark.parametrize("networks", list(permutations(NETWORKS)))
def test_of_two_foreign_ones_neither_is_meant(networks: tuple[ObservedNetwork, ...]) -> None:
    assert network_ids(networks, []) == {"dmz": "c"}
