# SPDX-License-Identifier: Apache-2.0
"""
This host's files of a network that several hosts share.

    /var/lib/cnihook/cluster/NAME/member.json      how it joined: etcd, its claim, its address
    /var/lib/cnihook/cluster/NAME/block.json       its block, which host-local reads (cnihook/ipam/block.py)
    /var/lib/cnihook/cluster/NAME/snapshot.json    the settings and the blocks, as the agent saw them last
    /run/cnihook/cluster/NAME.json                 what the agent does now

`cnihook cluster join` writes the first one, and the agent the others.  After a boot, the agent makes the
routes from the snapshot before etcd answers.
"""

import os
from dataclasses import dataclass

from cnihook.cluster.claims import Own
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.model import Block, Member, ModelError, Settings
from cnihook.cluster.peers import Peers
from cnihook.cluster.store import StoreError
from cnihook.fast import fastjson, statefile
from cnihook.ipam import block as block_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUN = "/run/cnihook/cluster"
_MACHINE_ID = "/etc/machine-id"


class StateError(Exception):
    """A file of this host is damaged or missing; the text is one line."""


@dataclass(frozen=True)
class Membership:
    """The way in which this host joined a network.

    host: the machine ID with which it joined
    claim: random, made by the join
    address: where the other hosts reach it; empty: its address towards etcd
    """

    access: Access
    host: str
    claim: str
    address: str = ""


class State:
    """The files of one network."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.folder = f"{block_file.FOLDER}/{network}"
        self.status_path = f"{RUN}/{network}.json"

    def membership(self) -> Membership:
        """Return how this host joined.  Raises StateError if it did not."""
        value = self._read(block_file.MEMBER)
        if not value:
            raise StateError(f"this host has not joined the network {self.network}")
        etcd = value.get("etcd")
        etcd = etcd if isinstance(etcd, dict) else {}
        urls = etcd.pop("endpoints", [])
        texts = [value.get(key) for key in ("host", "claim", "address")] + list(etcd.values())
        if not isinstance(urls, list) or not all(isinstance(text, str) for text in (*texts, *urls)):
            raise StateError(f"{self.folder}/member.json: is damaged")
        try:
            access = Access(tuple(urls), **etcd)
        except (StoreError, TypeError) as error:
            raise StateError(f"{self.folder}/member.json: {error}") from None
        return Membership(access, value["host"], value["claim"], value["address"])

    def write_membership(self, membership: Membership) -> None:
        access = membership.access
        etcd: dict[str, Any] = {"endpoints": list(access.endpoints)}
        for key in ("ca", "cert", "key", "user_file"):
            if path := getattr(access, key):
                etcd[key] = path
        value = {
            "host": membership.host,
            "claim": membership.claim,
            "address": membership.address,
            "etcd": etcd,
        }
        self._write(block_file.MEMBER, value)

    def own(self) -> Own:
        """Return this host's block.  Raises StateError for a damaged file."""
        value = self._read(block_file.FILE)
        texts = [value.get(key, "") for key in ("epoch", "key", "fenced")]
        if not all(isinstance(text, str) for text in texts):
            raise StateError(f"{self.folder}/{block_file.FILE}: is damaged")
        return Own(epoch=texts[0], key=texts[1], fenced=texts[2])

    def write_own(self, own: Own, settings: Settings) -> None:
        """Write this host's block, also where a power failure follows: it is what keeps it from another."""
        blocks = map(str, settings.block(settings.index_of_key(own.key))) if own.key else ()
        value = {"key": own.key, "blocks": list(blocks), "epoch": own.epoch, "fenced": own.fenced}
        self._write(block_file.FILE, value)

    def discard_own(self) -> None:
        """Have no block any more, and no reason to be fenced."""
        statefile.discard(f"{self.folder}/{block_file.FILE}")

    def fence(self, reason: str) -> None:
        """Keep this host from starting containers, whatever the file has."""
        try:
            value = self._read(block_file.FILE)
        except StateError:
            value = {}
        self._write(block_file.FILE, {**value, "fenced": reason})

    def peers(self) -> "Peers | None":
        """Return the snapshot, None if there is none.  Raises StateError for a damaged file."""
        value = self._read("snapshot.json")
        if not value:
            return None
        try:
            settings = Settings.from_json(str(value.get("config")).encode())
            blocks = {}
            for part, text in value["blocks"].items():
                blocks[part] = Block(settings.index_of_key(part), Member.from_json(text.encode()))
            unconfirmed = frozenset(map(str, value["unconfirmed"])) & blocks.keys()
            return Peers(settings, blocks, int(value["revision"]), unconfirmed)
        except (ModelError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"{self.folder}/snapshot.json: is damaged: {error}") from None

    def write_peers(self, peers: Peers) -> None:
        value = {
            "config": peers.settings.to_json().decode(),
            "revision": peers.revision,
            "blocks": {part: block.member.to_json().decode() for part, block in peers.blocks.items()},
            "unconfirmed": sorted(peers.unconfirmed),
        }
        self._write("snapshot.json", value)

    def status(self) -> "dict[str, Any]":
        """Return what the agent wrote of itself; empty if it has not run since the boot."""
        try:
            value = fastjson.loads((statefile.read(self.status_path) or b"{}").decode())
        except ValueError:
            value = {}
        return value if isinstance(value, dict) else {}

    def write_status(self, value: "dict[str, Any]") -> None:
        os.makedirs(RUN, mode=0o755, exist_ok=True)
        statefile.replace(self.status_path, fastjson.dumps(value).encode(), mode=0o644)

    def remove(self) -> None:
        """Remove all files of the network."""
        statefile.discard(self.status_path)
        for name in (block_file.FILE, "snapshot.json", block_file.MEMBER):
            statefile.discard(f"{self.folder}/{name}")
        statefile.discard(self.folder)

    def _read(self, name: str) -> "dict[str, Any]":
        """Return the object in a file; empty without the file.  Raises StateError."""
        path = f"{self.folder}/{name}"
        try:
            value = fastjson.loads((statefile.content(path) or b"{}").decode())
        except ValueError as error:
            raise StateError(f"{path}: {error}") from None
        if not isinstance(value, dict):
            raise StateError(f"{path}: is not a JSON object")
        return value

    def _write(self, name: str, value: "dict[str, Any]") -> None:
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        statefile.replace(f"{self.folder}/{name}", fastjson.dumps(value).encode(), durable=True)


def networks() -> "list[str]":
    """Return the networks that this host has joined."""
    try:
        names = sorted(os.listdir(block_file.FOLDER))
    except FileNotFoundError:
        return []
    return list(filter(block_file.is_joined, names))


def machine_id() -> str:
    """Return this host's machine ID.  Raises StateError."""
    text = (statefile.read(_MACHINE_ID) or b"").decode(errors="replace").strip()
    if len(text) != 32:
        raise StateError(f"{_MACHINE_ID}: has no machine ID; `systemd-machine-id-setup` writes one")
    return text
