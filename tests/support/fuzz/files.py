# SPDX-License-Identifier: Apache-2.0
"""Targets that read files of cnihook or another program, which a crash can leave in any state."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any

from cnihook.dhcp import lease
from cnihook.dhcp.lease import Lease
from cnihook.dhcp.message import Message
from cnihook.fast.address import Address
from cnihook.ipam import resolv_conf as network_resolv_conf
from cnihook.ipam.leases import Store
from cnihook.names import container_dns, entries, hosts, resolv_conf
from cnihook.names.entries import Entry
from cnihook.names.rootfs_file import File
from cnihook.plugins import tuning
from cnihook.runtime import networks, records
from cnihook.types.errors import CniError
from cnihook.types.result import DNS
from tests.support.fuzz.target import Broken, Target, same

KEYWORDS = {"domain", "search", "nameserver", "options", "sortlist"}


@cache
def folder() -> str:
    """Return the scratch folder of this process."""
    path = tempfile.mkdtemp(prefix="cnihook-fuzz-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _scratch(read: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Replace fixed paths by paths in the scratch folder, while a target reads."""

    def apart(data: bytes) -> None:
        path = folder()
        places: list[tuple[Any, str, object]] = [
            (entries, "FOLDER", f"{path}/names"),
            (records, "FOLDER", f"{path}/results"),
            (resolv_conf, "HOST", f"{path}/resolv.conf"),
            (resolv_conf, "WITHOUT_STUB", f"{path}/resolv.conf"),
            (lease, "_boot_id", lambda: "b"),
        ]
        before = [getattr(module, name) for module, name, _ in places]
        try:
            for module, name, value in places:
                setattr(module, name, value)
            read(data)
        finally:
            for (module, name, _), value in zip(places, before, strict=True):
                setattr(module, name, value)

    return apart


def _put(name: str, data: bytes) -> str:
    path = f"{folder()}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return path


@_scratch
def _record(data: bytes) -> None:
    """Check that a record is the same after it is written and read again."""
    record = records.read(_put("results/n-c1-eth0", data))
    if record:
        record.folder = f"{folder()}/again"
        record.write()
        again = records.read(record.path)
        os.unlink(record.path)
        assert again
        for name in ("identity", "config", "netns", "capability_args", "result", "sequence"):
            same(getattr(again, name), getattr(record, name), name)
        networks.parse(record.config, "the record")


@_scratch
def _lease(data: bytes) -> None:
    """Write a last address and a lease with this content; all operations of the network must still work."""
    path = f"{folder()}/leases"
    name, _, content = data.partition(b"\n")
    os.makedirs(path, exist_ok=True)
    for old in os.listdir(path):
        if old != ".owners":
            os.unlink(f"{path}/{old}")
    _put("leases/10.1.0.5", content)
    _put("leases/last_reserved_ip.0", name)
    with Store(path, "c1", "eth0") as store:
        store.last_reserved(0)
        store.owned()
        address = Address.parse("10.1.0.6")
        assert store.reserve(address, 0) and address in store.owned()
        store.release()
        assert address not in store.owned()


@_scratch
def _dhcp_lease(data: bytes) -> None:
    _put("dhcp/lease", data)
    for kept in Lease.load_all(f"{folder()}/dhcp"):
        f"{kept} {kept.renew_at} {kept.rebind_at} {kept.expires_at}"
        Message(b"abcd", kept.server_mac[:16], kept.options | kept.granted).encode()
        kept.write()
        if not Lease.load(kept.folder, kept.owner):
            raise Broken("a lease that was stored is not read")


@_scratch
def _tuning(data: bytes) -> None:
    backup = tuning._load(_put("tuning/c1_eth0.json", data))
    if backup:
        tuning._settings(backup)
        tuning._merged({"network": "n", "sysctl": {}}, backup)


@_scratch
def _hosts(data: bytes) -> None:
    """Check that other programs' lines stay, and that a container's lines are removed with it."""
    path = _put("etc/hosts", data)
    file = File(os.path.dirname(path), "hosts")
    entry = Entry("n", "c9", "eth0", ["10.1.0.9"], ["c9"], ["db"], None)
    kept = hosts.without_ours(file, [])
    file.write(kept)
    same(hosts.without_ours(file, []), kept, "a hosts file without lines of cnihook")
    file.append(entry.lines())
    file.remove_lines(entry.tag)
    same(file.read(), kept, "a hosts file after a line came and went")


@_scratch
def _entry(data: bytes) -> None:
    _put("names/n/c1", data)
    entry = Entry.read("n", "c1")
    if entry:
        entry.lines()
        entry.write()
        again = Entry.read("n", "c1")
        assert again
        for name in ("ifname", "addresses", "names", "aliases", "private", "file"):
            same(getattr(again, name), getattr(entry, name), name)


@_scratch
def _resolv_conf(data: bytes) -> None:
    """Check that a container's file has only keywords of resolv.conf."""
    path = _put("resolv.conf", data)
    dns = network_resolv_conf.read(path)
    for text in (resolv_conf.text([dns]), resolv_conf.text([], dns), resolv_conf.text([dns, DNS()], DNS())):
        wrong = [line for line in text.split("\n") if line and line.split()[0] not in KEYWORDS]
        if wrong:
            raise Broken(f"lines of resolv.conf: {wrong}")
    resolv_conf.host_text()
    resolv_conf.renewed(resolv_conf.of_host())
    container_dns.host_names(data[:300].decode(errors="replace"))


TARGETS = (
    Target("record", _record, (CniError, OSError)),
    Target("lease", _lease, (OSError,)),
    Target("dhcp-lease", _dhcp_lease, (OSError,)),
    Target("tuning", _tuning, (CniError, OSError)),
    Target("hosts", _hosts, (OSError,)),
    Target("names", _entry, (OSError,)),
    Target("resolv.conf", _resolv_conf),
)
