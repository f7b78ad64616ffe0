# SPDX-License-Identifier: Apache-2.0
"""host-local: the block that this host has of a cluster's network, in a file that the agent writes."""

import json
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ipam import OWNERS, add, delete, leased, network, request

FOLDER = "/var/lib/cnihook/cluster/wide"
CONF = network(block="wide", version="1.1.0", routes=[{"dst": "0.0.0.0/0"}])


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: the reference does not know the key."""
    return implementations["builtin"]


def write(host: Host, **content: Any) -> None:
    host.leaves(f"file {FOLDER}/*", f"dir {FOLDER}", "dir /var/lib/cnihook/cluster", "dir /var/lib/cnihook")
    host.write(f"{FOLDER}/block.json", json.dumps(content))


def refusal(host: Host, command: str, conf: Any = CONF) -> tuple[int, str, str]:
    with pytest.raises(CniFailure) as failure:
        request(host, command, conf)
    return failure.value.code, failure.value.msg, failure.value.details


def test_container_gets_addresses_of_both_blocks(host: Host) -> None:
    host.leaves(*OWNERS)
    write(host, blocks=["10.60.7.0/24", "fd00:60:0:7::/64"], fenced="")
    result = request(host, "ADD", CONF)
    assert result["ips"] == [
        {"address": "10.60.7.2/24", "gateway": "10.60.7.1"},
        {"address": "fd00:60:0:7::2/64", "gateway": "fd00:60:0:7::1"},
    ]
    assert request(host, "CHECK", CONF | {"prevResult": result}) is None
    request(host, "STATUS", CONF)
    write(host, blocks=["10.60.9.0/24"], fenced="")
    assert add(host, CONF, "c2") == ["10.60.9.2"]
    delete(host, CONF)
    assert leased(host) == ["10.60.9.2"]
    # Without a block, leases can still be released.
    host.run("rm", f"{FOLDER}/block.json")
    request(host, "GC", CONF | {"cni.dev/valid-attachments": []})
    assert leased(host) == []


def test_host_without_a_block_is_reported(host: Host) -> None:
    msg = "cluster network wide: this host has no block of addresses yet"
    details = "`cnihook cluster status wide` shows what it waits for"
    assert refusal(host, "STATUS") == refusal(host, "ADD") == (50, msg, details)
    write(host, blocks=[], fenced="")
    assert refusal(host, "ADD") == (50, msg, details)
    for damaged in ("{", "[]", '{"blocks": 7}', '{"blocks": [7]}'):
        host.write(f"{FOLDER}/block.json", damaged)
        code, msg, _details = refusal(host, "ADD")
        assert code == 50 and msg.startswith(f"{FOLDER}/block.json: ")
    host.write(f"{FOLDER}/block.json", '{"blocks": ["nonsense"]}')
    assert "block.json" in refusal(host, "ADD")[1]
    assert leased(host) == []


def test_fenced_host_starts_nothing_and_keeps_what_runs(host: Host) -> None:
    host.leaves(*OWNERS)
    write(host, blocks=["10.60.7.0/24"], fenced="")
    result = request(host, "ADD", CONF)
    write(host, blocks=["10.60.7.0/24"], fenced="block 10.60.7.0/24 belongs to host h5 (172.16.0.5) now")
    for command in ("ADD", "STATUS"):
        code, msg, details = refusal(host, command)
        assert code == 51 and "may not start containers" in msg and "belongs to host h5" in msg
        assert "`cnihook cluster leave wide --force`" in details
    assert request(host, "CHECK", CONF | {"prevResult": result}) is None
    delete(host, CONF)
    assert leased(host) == []


def test_block_excludes_subnets_and_names_a_network(host: Host) -> None:
    code, msg, _details = refusal(host, "ADD", network("10.9.0.0/24", block="wide"))
    assert code == 7 and '"block" and ranges[0] are both there' in msg
    code, msg, _details = refusal(host, "ADD", network(block="../../../etc"))
    assert code == 7 and "network name" in msg
