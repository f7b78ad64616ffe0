# SPDX-License-Identifier: Apache-2.0
"""
The keeper: one process that renews every lease for as long as its container has it.

It ends when it has had neither leases nor callers for some time.
"""

import asyncio
import socket

from cnihook.dhcp import lease, spanning_tree
from cnihook.dhcp.client import Client, DhcpError, NoAnswerError, ServerRefusedError
from cnihook.dhcp.lease import Lease, Owner, now
from cnihook.dhcp.rawsocket import Channel
from cnihook.fast.errors_text import message_with_notes
from cnihook.keeper import server
from cnihook.keeper.server import LINGER, RequestError
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import IF_OPER_UP, Link
from cnihook.log import Log, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Seconds in which to get an address: 15 more than spanning tree needs to open a new port, 15 less than a
# hook has.  The reference asks for 62.
TIMEOUT = 45.0
_PATIENCE = 10.0  # seconds for a server to answer to a renewal
_AGAIN = 60.0  # least seconds between two tries to renew (RFC 2131, 4.4.5), and two looks at a namespace
_ETHERNET_MAC = 17  # characters
_CARRIER = 1.5  # seconds; the kernel takes up to one until it reports that a link is up


class Daemon(server.Daemon):
    def __init__(self, listener: socket.socket, *, timeout: float = TIMEOUT, linger: float = LINGER) -> None:
        super().__init__(listener, linger=linger)
        self._folder = lease.folder_of(listener.getsockname())
        self._timeout = timeout
        self._kept: dict[Owner, tuple[Lease, asyncio.Task[None]]] = {}
        self._asking: dict[Owner, asyncio.Task[None]] = {}

    async def begin(self) -> None:
        for kept in Lease.load_all(self._folder):
            self._keep(kept)

    @property
    def is_busy(self) -> bool:
        return bool(self._kept)

    async def do(self, request: "dict[str, Any]") -> "dict[str, Any]":
        what = request["do"]
        if what == "status":
            return {}
        if what == "gc":
            keep = {tuple(attachment) for attachment in request["keep"]}
            for owner in list(self._kept):
                if owner[0] == request["network"] and owner[1:] not in keep:
                    await self._release(owner)
            return {}
        network, container_id, ifname = request["owner"]
        owner = (network, container_id, ifname)
        if what == "release":
            await self._release(owner)
            return {}
        if what == "obtain":
            kept = await self._obtain(owner, request)
        elif what == "show" and owner in self._kept:
            kept = self._kept[owner][0]
        elif what == "show":
            raise RequestError(f"there is no lease of {ifname} of container {container_id}")
        else:
            raise ValueError(f"{what!r} is unknown")
        return {
            "address": str(kept.address),
            "server": str(kept.server),
            "options": lease.to_json(kept.granted),
        }

    # Leases

    async def _obtain(self, owner: Owner, request: "dict[str, Any]") -> Lease:
        fresh = Lease(
            self._folder,
            owner,
            request["netns"],
            options=lease.from_json(request["options"]),
            parameters=request["parameters"],
        )
        namespace = NetNS.open(fresh.netns)
        try:
            link = namespace.rtnl.find_link(owner[2])
            if not link:
                raise RequestError(f"{fresh} does not exist; dhcp uses it, so it must be created first")
            if len(link.mac) != _ETHERNET_MAC:
                raise RequestError(f"{fresh} is not an Ethernet link")
            fresh.claim(namespace, link)
            if owner in self._kept:
                kept = self._kept[owner][0]
                if (kept.identity, kept.index) == (fresh.identity, fresh.index):
                    return kept
            await self._release(owner)  # of an earlier container with this ID, or of an ADD in progress
            timeout = float(request.get("timeout") or self._timeout)
            self._asking[owner] = asyncio.ensure_future(_ask(fresh, namespace, link, timeout))
            try:
                await self._asking[owner]
                fresh.write()
            except BaseException:
                fresh.release()
                raise
            finally:
                self._asking.pop(owner, None)
        finally:
            namespace.close()
        self._keep(fresh)
        return fresh

    async def _release(self, owner: Owner) -> None:
        asking = self._asking.pop(owner, None)
        if asking:
            asking.cancel()
            await asyncio.wait((asking,))
        if owner in self._kept:
            kept, task = self._kept.pop(owner)
            task.cancel()
            await asyncio.wait((task,))
            kept.release()

    def _keep(self, kept: Lease) -> None:
        task = asyncio.ensure_future(self._renew_until_lost(kept))
        self._kept[kept.owner] = kept, task
        task.add_done_callback(lambda task: self._let_go(kept, task))

    def _let_go(self, kept: Lease, task: "asyncio.Task[None]") -> None:
        if self._kept.get(kept.owner) == (kept, task):
            del self._kept[kept.owner]
        if not task.cancelled() and (error := task.exception()):
            warn(f"{kept}: {message_with_notes(error)}")
        self.changed.set()

    async def _renew_until_lost(self, kept: Lease) -> None:
        """Renew a lease until it ends: it could not be renewed, or its link or file is gone."""
        wake_at = kept.renew_at
        while True:
            # In small steps: this clock stops while the machine sleeps, and the container may be gone.
            await asyncio.sleep(min(max(wake_at - now(), 0), _AGAIN))
            place = kept.find() if kept.is_on_record else None
            if not place:
                kept.forget()
                return
            namespace, link = place
            # The end of the present stage: T2, then the lease's end.
            stage = kept.rebind_at if now() < kept.rebind_at else kept.expires_at
            try:
                if now() < wake_at:
                    continue
                await _renew(kept, namespace, link, min(stage - now(), _PATIENCE))
                wake_at = kept.renew_at
            except (NoAnswerError, OSError) as error:
                if now() >= kept.expires_at:
                    _lose(kept, namespace, link, error)
                    return
                wake_at = min(stage, now() + max((stage - now()) / 2, _AGAIN))
            except ServerRefusedError as error:
                _lose(kept, namespace, link, error)
                return
            finally:
                namespace.close()


async def _ask(fresh: Lease, namespace: NetNS, link: Link, timeout: float) -> None:
    await _raise(namespace, link)
    channel = Channel(namespace, link)
    try:
        await Client(fresh, channel, link).obtain(timeout)
    except DhcpError as error:
        reason = spanning_tree.explain(namespace, link) if isinstance(error, NoAnswerError) else ""
        text = f"{fresh}: {error} (asked for {timeout:g} s)"
        raise RequestError(f"{text}; {reason}" if reason else text, later=True) from None
    finally:
        channel.close()


async def _renew(kept: Lease, namespace: NetNS, link: Link, timeout: float) -> None:
    channel = Channel(namespace, link)
    try:
        await Client(kept, channel, link).extend(timeout)
    except ServerRefusedError as refusal:
        # A server that has lost its leases also refuses, but grants the same address to a new request.
        try:
            await Client(kept, channel, link).obtain(_PATIENCE, only=kept.address)
        except DhcpError:
            raise refusal from None
    finally:
        channel.close()
    kept.write()


def _lose(kept: Lease, namespace: NetNS, link: Link, reason: Exception) -> None:
    """Set the container's link down: another machine may get its address from now on.

    The container does not get another address.  Its runtime has reported this one, and would not notice.
    """
    error = RequestError(f"{message_with_notes(reason)}; {kept.owner[2]} is down now")
    Log(kept.owner[1]).failure("renewal", error, f"of {kept.address}")
    warn(f"{kept}: renewal of {kept.address}: {message_with_notes(error)}")
    try:
        namespace.rtnl.set_link(link, up=False)
    finally:
        kept.forget()


async def _raise(namespace: NetNS, link: Link) -> None:
    """Set the link up, and wait until the kernel reports it as up: what is sent earlier is lost."""
    if not link.is_up:
        namespace.rtnl.set_link(link, up=True)
    deadline = now() + _CARRIER
    while now() < deadline:
        current = namespace.rtnl.find_link_by_index(link.index)
        if not current or current.operstate == IF_OPER_UP:
            return
        await asyncio.sleep(0.005)
