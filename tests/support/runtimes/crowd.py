# SPDX-License-Identifier: Apache-2.0
"""Many attachments at once, with what the hook leaves for each: a thousand hooks would take a minute.

One real attachment is the template.  The others are copies of its record, lease, mark, log, settings and
elements, and have links of their own, whose container ends are all in one namespace.
"""

import json
import os
import re
from pathlib import Path

from cnihook.ipam import leases
from cnihook.links import veth
from cnihook.types.names import record_name
from tests.support.host.host import Container, Host
from tests.support.runtimes.oci import NETWORKS, RESULTS

_FIRST = 0x0A161000  # 10.22.16.0, far from the addresses that the real containers of a test get
_ELEMENTS = re.compile(r"\tmap (\S+) \{[^}]*?elements = \{ ([^}]*) \}")


class Crowd:
    """Copies of one attachment, `template`, which publishes at most one port of TCP."""

    def __init__(self, host: Host, template: str, network: str, bridge: str) -> None:
        self._host = host
        self._template = template
        self._network = network
        self._bridge = bridge
        self._namespace: Container = host.container("crowd")
        self._records = self._path(RESULTS)
        self._leases = self._path(f"{NETWORKS}/{network}")
        self._record = (self._records / record_name(network, template, "eth0")).read_text()
        (ip,) = json.loads(self._record)["result"]["ips"]
        self._address = ip["address"].partition("/")[0]
        table = host.run("nft", "list", "table", "inet", "cnihook").stdout
        self._elements = _ELEMENTS.findall(table)

    def _path(self, path: str) -> Path:
        return self._host.root / path.lstrip("/")

    def attach(self, count: int) -> None:
        links, elements = [], []
        for number in range(count):
            container_id = f"crowd{number:05}"
            address = ".".join(map(str, (_FIRST + number).to_bytes(4, "big")))
            self._copy_files(container_id, address)
            links += self._links(container_id, number)
            elements += self._copies(container_id, address, number)
        for folder in (self._leases, self._leases / leases.OWNERS):
            os.utime(folder, (leases._MARK, leases._MARK))
        self._host.run("ip", "-batch", "-", input="\n".join(links) + "\n")
        self._host.run("nft", "-f", "-", input="\n".join(elements) + "\n")

    def _copy_files(self, container_id: str, address: str) -> None:
        record = self._record.replace(f'"{self._template}"', f'"{container_id}"')
        name = record_name(self._network, container_id, "eth0")
        (self._records / name).write_text(record.replace(self._address, address))
        owner = leases.owner(container_id, "eth0")
        (self._leases / address).write_bytes(owner)
        owners = self._leases / leases.OWNERS
        os.symlink(f"../{address}", owners / f"{leases.digest(owner)}.0")
        self._path(f"/run/cnihook/{container_id}.ns").write_text("1 1\n")
        self._path(f"/run/cnihook/log/{container_id}").write_text("")
        self._path(f"/run/netns/{container_id}").write_text("")
        settings = self._path(f"/run/cni/tuning/{self._template}_eth0.json")
        if settings.exists():
            settings.with_name(f"{container_id}_eth0.json").write_text(settings.read_text())

    def _links(self, container_id: str, number: int) -> list[str]:
        port = next(veth.names_for(f"{self._network} {container_id} eth0"))
        peer = f"peer name e{number} netns {self._namespace.name}"
        links = [f"link add {port} master {self._bridge} up type veth {peer}"]
        if "bwp" in self._record:
            links.append(f"link add bwp{number:012x} up type ifb")
        return links

    def _copies(self, container_id: str, address: str, number: int) -> list[str]:
        copies = []
        for name, element in self._elements:
            copy = element.replace(f" {self._template} ", f" {container_id} ").replace(
                self._address, address
            )
            copy = re.sub(r"^(tcp \. )\d+", rf"\g<1>{20000 + number}", copy)
            copy = re.sub(r'^"[0-9a-f]{14}"', f'"{number:014x}"', copy)
            copies.append(f"add element inet cnihook {name} {{ {copy} }}")
        return copies
