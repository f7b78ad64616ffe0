# SPDX-License-Identifier: Apache-2.0
"""
A cluster's store in the Nodes of Kubernetes: the blocks are what kube-controller-manager gives the nodes.

    block      spec.podCIDRs
    Member     the annotation cnihook.io/NETWORK, which each agent writes on its own node; before that, what
               the node itself has: its address and its machine ID
    config     a file, which is the same on all nodes (a ConfigMap)

Nothing is claimed, and nothing has a lease: the API server gives the blocks, and knows which nodes live.
The agent of a node may only change the annotations of nodes (RBAC: patch nodes/status).
"""

from _blake2 import blake2s
from ipaddress import ip_network

from cnihook.cluster.kubernetes_api import ConflictError
from cnihook.cluster.model import Member, ModelError, Settings
from cnihook.cluster.store import CompactedError, Event, Item, Keys, Span, Store, StoreError
from cnihook.fast import fastjson
from cnihook.log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from threading import Event as Flag
    from typing import Any

    from cnihook.cluster.kubernetes_api import Api

_PATH = "/api/v1/nodes"
_CONFIG_REVISION = 1  # it does not change while the agent runs
_LEASE = 1
_EPOCH = "0"  # the API server has one life: its backup is the cluster's
_PAUSE = 0.2  # seconds between two watches


def settings_of(text: bytes) -> Settings:
    """Return the settings in a file: the store's, but without an epoch.  Raises ModelError."""
    try:
        value = fastjson.loads(text.decode())
    except ValueError as error:
        raise ModelError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError("is not a JSON object")
    settings = Settings.from_json(fastjson.dumps({"epoch": _EPOCH, **value}).encode())
    if settings.names:
        raise ModelError("names: Kubernetes has its own names of pods, so this is for etcd only")
    return settings


class NodesStore(Store):
    """The nodes of a cluster, for the agent on one of them."""

    def __init__(self, api: "Api", network: str, settings: "Settings", node: str, host: str) -> None:
        self._api = api
        self._keys = Keys(network)
        self._annotation = f"cnihook.io/{network}"
        self._settings = settings
        self._node = node
        self._host = host  # the machine ID of the own node
        self._items: dict[str, Item] = {}  # by the name of the node
        self._revision = 0
        self._resume = (0, 0)  # a revision that was reported, and a later one without changes in between
        self._refused: dict[str, str] = {}

    def own(self) -> "tuple[Member, str]":
        """Return this host as its node has it, and how its block is named; empty if it has none.

        Raises StoreError.
        """
        node = self._api.get(f"{_PATH}/{self._node}")
        try:
            return self._composed(node), self._part(node)
        except ModelError as error:
            raise StoreError(f"node {self._node}: {error}") from None

    # Store

    def items(self, span: Span) -> "tuple[list[Item], int]":
        if not self._keys.watched.first <= span.first < self._keys.watched.end:
            return [], self._revision  # blocks in quarantine, and the keys below live
        items = [Item(self._keys.config, self._settings.to_json(), _CONFIG_REVISION)]
        if span.first <= self._keys.block("") or span.first.startswith(self._keys.block("")):
            self._list()
            items += self._items.values()
        return sorted(
            (item for item in items if item.key in span), key=lambda item: item.key
        ), self._revision

    def _list(self) -> None:
        items: dict[str, Item] = {}
        revision = ""
        for nodes, page_revision in self._api.pages(_PATH):
            revision = revision or page_revision
            for node in nodes:
                if item := self._item(node):
                    items[_name(node)] = item
        self._items, self._revision = items, _number(revision)

    def watch(self, span: Span, revision: int, stop: "Flag") -> "Iterator[list[Event]]":
        start = self._resume[1] if self._resume[0] == revision else revision
        while not stop.is_set():
            # The server ends a watch after some minutes.
            for kind, node in self._api.watch(_PATH, str(start), stop):
                if not kind:
                    yield []
                    continue
                start = max(start, _number(_metadata(node).get("resourceVersion")))
                if kind != "BOOKMARK":
                    events = [event for event in self._changes(kind, node, start) if event.key in span]
                    if events:
                        revision = start
                        yield events
                self._revision = start
                self._resume = (revision, start)
            stop.wait(_PAUSE)

    def _changes(self, kind: str, node: "dict[str, Any]", revision: int) -> "Iterator[Event]":
        """Yield what an event changes of the blocks: most concern the state of a node only."""
        name = _name(node)
        old = self._items.get(name)
        new = None if kind == "DELETED" else self._item(node)
        if old and (not new or new.key != old.key):
            yield Event(old.key, None, revision)
        if new and (not old or (new.key, new.value) != (old.key, old.value)):
            yield Event(new.key, new.value, revision)
        if new:
            self._items[name] = new
        else:
            self._items.pop(name, None)

    def create(
        self, key: str, value: bytes, *, lease: int = 0, given: "Mapping[str, bytes | None] | None" = None
    ) -> int:
        """Write nothing: a node that lives is known, and its block is not chosen here."""
        if key.startswith(self._keys.block("")):
            reason = "kube-controller-manager gives one with --allocate-node-cidrs"
            raise StoreError(f"node {self._node}: has no spec.podCIDRs of the network yet: {reason}")
        return max(self._revision, 1)

    def replace(self, key: str, value: bytes, expected: bytes, *, lease: int = 0) -> bool:
        """Write the own node's annotation.  Only this host writes it."""
        own = self._items.get(self._node)
        if not own or (own.key, own.value) != (key, expected):
            return False
        change = {"metadata": {"annotations": {self._annotation: value.decode()}}}
        try:
            self._api.patch(f"{_PATH}/{self._node}/status", change)
        except ConflictError:
            return False
        return True

    def delete(self, key: str, expected: bytes) -> bool:
        raise StoreError("the API server gives the blocks: `kubectl delete node` takes one away")

    def grant(self, ttl: int) -> int:
        return _LEASE

    def keep_alive(self, lease: int) -> bool:
        return lease == _LEASE

    def revoke(self, lease: int) -> None:
        """Do nothing: there is no lease."""

    # Nodes

    def _item(self, node: "dict[str, Any]") -> "Item | None":
        """Return the block of a node; None if it has none of this network."""
        name = _name(node)
        try:
            part = self._part(node)
            if not part:
                return None
            value = self._written(node) or self._composed(node).to_json()
        except ModelError as error:
            self._report(name, str(error))
            return None
        self._refused.pop(name, None)
        return Item(self._keys.block(part), value, _number(_metadata(node).get("resourceVersion")))

    def _written(self, node: "dict[str, Any]") -> bytes:
        """Return the annotation; empty if it is missing, or of an earlier life of the own node."""
        annotations = _metadata(node).get("annotations")
        text = annotations.get(self._annotation) if isinstance(annotations, dict) else None
        if not isinstance(text, str):
            return b""
        if _name(node) == self._node:
            own = self._composed(node)
            try:
                written = Member.from_json(text.encode())
            except ModelError:
                return b""
            if (written.host, written.claim) != (own.host, own.claim):
                return b""
        return text.encode()  # if it is wrong, the view reports it

    def _part(self, node: "dict[str, Any]") -> str:
        """Return how the block of a node is named.  Raises ModelError for one of another network."""
        spec = node.get("spec")
        texts = spec.get("podCIDRs") if isinstance(spec, dict) else None
        if not isinstance(texts, list) or not texts:
            return ""
        try:
            nets = [ip_network(str(text)[:64]) for text in texts[:2]]
        except ValueError as error:
            raise ModelError(f"spec.podCIDRs: {error}") from None
        for net in nets:
            if net.version == self._settings.subnets[0].version:
                index = self._settings.index(net)
                if set(self._settings.block(index)) <= set(nets):
                    return self._settings.key(index)
        raise ModelError(f"spec.podCIDRs: {', '.join(map(str, nets))}: are not one block of the network")

    def _composed(self, node: "dict[str, Any]") -> Member:
        """Return a host by what its node has.  Raises ModelError."""
        name, status = _name(node), node.get("status")
        status = status if isinstance(status, dict) else {}
        addresses = status.get("addresses")
        internal = [
            str(each.get("address"))
            for each in (addresses if isinstance(addresses, list) else ())
            if isinstance(each, dict) and each.get("type") == "InternalIP"
        ]
        if not internal:
            raise ModelError("status.addresses: has no InternalIP")
        about = status.get("nodeInfo")
        machine = str(about.get("machineID", "")) if isinstance(about, dict) else ""
        return Member(
            host=self._host if name == self._node else machine.replace("-", "").lower(),
            name=name,
            claim=blake2s(f"{self._keys.network}/{name}".encode(), digest_size=8).hexdigest(),
            address=internal[0],
        )

    def _report(self, name: str, problem: str) -> None:
        """Log what is wrong with a node, once."""
        if self._refused.get(name) != problem:
            self._refused[name] = problem
            warn(f"agent: {self._keys.network}: node {name}: {problem}")


def _metadata(node: "dict[str, Any]") -> "dict[str, Any]":
    about = node.get("metadata")
    return about if isinstance(about, dict) else {}


def _name(node: "dict[str, Any]") -> str:
    return str(_metadata(node).get("name", ""))[:253]


def _number(revision: object) -> int:
    """Return a revision as a number, which those of Kubernetes are.  Raises CompactedError for another."""
    text = str(revision)
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise CompactedError(f"{text!r:.40} is not a revision")
    return int(text)
