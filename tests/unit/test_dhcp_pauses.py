# SPDX-License-Identifier: Apache-2.0
"""The pauses of the DHCP client, and the limits on its time."""

import random
from itertools import accumulate, takewhile

import pytest

from cnihook.cli import dhcp_keeper
from cnihook.dhcp import client, daemon, rpc
from cnihook.oci import inject

SPANNING_TREE = 30.0  # seconds: two forward delays, by the kernel's default
ANSWER = 5.0  # seconds that a server may take
STEP = 4.0  # seconds that the link and a busy machine may take before the first try


@pytest.mark.parametrize("seed", range(20))
def test_request_is_repeated_after_spanning_tree_opens_the_port(seed: int) -> None:
    random.seed(seed)
    times = list(takewhile(lambda time: time < daemon.TIMEOUT, accumulate(client._pauses())))

    assert any(SPANNING_TREE < time < daemon.TIMEOUT - ANSWER for time in times), times


def test_each_limit_is_within_the_next() -> None:
    assert SPANNING_TREE < daemon.TIMEOUT < rpc.KEEPER.patience - STEP < inject._TIMEOUT - STEP
    assert dhcp_keeper.parser().parse_args([]).timeout == daemon.TIMEOUT
