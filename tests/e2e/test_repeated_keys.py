# SPDX-License-Identifier: Apache-2.0
"""JSON with a duplicate key: some commands reject it, others use the last value, as Go does."""

import json

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Failed
from tests.support.runtimes.oci import CNIHOOK, configure

FILE = "/etc/cni/net.d/10-net1.conflist"
IPAM = '{"type": "host-local", "subnet": "10.1.0.0/24"}'
TUNING = '{"type": "tuning", "sysctl": {"net.core.somaxconn": "77", "net.core.somaxconn": "78"}}'


def network(plugin: str, more: str = "") -> str:
    bridge = f'{{"type": "bridge", "mtu": 1300, "mtu": 1400, "ipam": {IPAM}}}'
    return f'{{"cniVersion": "1.0.0", "name": "net1"{more}, "plugins": [{bridge}, {plugin}]}}'


def write(host: Host, text: str) -> None:
    configure(host)
    host.write(FILE, text)


def test_duplicate_setting_is_rejected_before_it_is_set(host: Host) -> None:
    write(host, network(TUNING))
    host.container("c1")

    with pytest.raises(Failed, match='sysctl: "net.core.somaxconn" is there more than once'):
        host.run(CNIHOOK, "add", "net1", "c1")


def test_last_of_other_duplicate_keys_is_used(host: Host) -> None:
    write(host, network('{"type": "tuning"}'))
    container = host.container("c1")
    host.run(CNIHOOK, "add", "net1", "c1")

    assert container.link("eth0")["mtu"] == 1400
    host.run(CNIHOOK, "del", "net1", "c1")


@pytest.mark.parametrize(
    "more",
    [
        ', "cnihook": {"annotations": false}, "cnihook": {}',
        ', "cnihook": {"annotations": false, "annotations": true}',
    ],
)
def test_duplicate_bound_of_a_network_is_rejected(host: Host, more: str) -> None:
    """The second value would open the network that the first one closes."""
    write(host, network('{"type": "tuning"}', more))
    host.container("c1")

    with pytest.raises(Failed, match="is there more than once"):
        host.run(CNIHOOK, "add", "net1", "c1")


def test_validate_reports_each_key_once(host: Host) -> None:
    write(host, network(TUNING))
    host.write("/etc/cnihook/config.json", '{"annotations": {"ports": "80", "ports": "1-65535"}}')
    host.leaves("dir /etc/cnihook", "file /etc/cnihook/config.json")
    answer = host.run(CNIHOOK, "validate", "--json", check=False)

    assert answer.returncode == 1
    assert [problem["key"] for problem in json.loads(answer.stdout)] == [
        "mtu",
        "net.core.somaxconn",
        "ports",
    ]
