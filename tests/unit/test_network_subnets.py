# SPDX-License-Identifier: Apache-2.0
"""The choice of a free subnet."""

import pytest

from cnihook.cli.networks import engines, subnets
from cnihook.cli.networks.subnets import Use
from cnihook.fast.address import IPNet
from cnihook.types.errors import CniError

POOLS = ("10.22.0.0/15", "10.24.0.0/13", "10.160.0.0/11", "192.168.192.0/18")


@pytest.fixture(autouse=True)
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore docker's networks of the machine that runs the test."""
    monkeypatch.setattr(engines, "docker_pools", list)


def free(*nets: str, version: int = 4) -> str:
    return str(subnets.free(version, [Use(IPNet.parse(net), "test") for net in nets]))


@pytest.mark.parametrize(
    ("nets", "expected"),
    [
        ([], "10.22.0.0/24"),
        (["10.22.0.200/32"], "10.22.1.0/24"),
        (["10.22.0.0/24", "10.22.2.0/24"], "10.22.1.0/24"),
        (["10.22.0.0/16"], "10.23.0.0/24"),
        (["10.22.0.0/15"], "10.24.0.0/24"),
        (["10.0.0.0/8"], "192.168.192.0/24"),
        (["fd00::/8"], "10.22.0.0/24"),
        ([f"10.22.{number}.7/32" for number in range(256)], "10.23.0.0/24"),
    ],
)
def test_first_free_subnet_is_chosen(nets: list[str], expected: str) -> None:
    assert free(*nets) == expected


def test_ipv6_subnet_is_local_and_random() -> None:
    one, other = (IPNet.parse(free(version=6)) for _ in range(2))

    assert one != other and one.prefix == 64 and one.address[0] == 0xFD and one.first() == one.address


@pytest.mark.parametrize(("version", "nets"), [(4, POOLS), (6, ["fd00::/8"])])
def test_no_free_subnet_is_reported(version: int, nets: list[str]) -> None:
    with pytest.raises(CniError, match="are in use; choose one with --subnet"):
        free(*nets, version=version)
