# SPDX-License-Identifier: Apache-2.0
"""
A cluster's store in etcd, by its JSON gateway and the standard library.

etcd3gw 2.7.0 was tried.  With etcd 3.4.23, its watch does not end if the server is stopped or killed, does
not go on after the server's return, and waits forever at a revision that is compacted.  It takes one server
and no user.  So this client has a watch of its own.

A watch can be silent for many reasons, so three things end it: the kernel, if the server's host does not
acknowledge (etcd_http.py); etcd, if its server has no leader; and a read from the same server every 15 s, if
that gets no answer, because a server that is stopped still acknowledges.
"""

import http.client
import json
import socket
import threading

from cnihook.cluster import etcd_http
from cnihook.cluster.etcd_http import Access, Gateway, decoded, encoded, number
from cnihook.cluster.store import (
    CompactedError,
    Event,
    Item,
    Span,
    Store,
    StoreError,
    StoreUnavailableError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from threading import Event as Flag
    from typing import Any

_PAGE = 2000  # items of one answer: 0.6 MB
_MOST = 1 << 21  # items of a span
_PROBE = 15.0  # seconds between two reads from the server of a watch
_LINE = 16 << 20  # bytes


class EtcdStore(Store):
    """etcd.  Threads may share it."""

    def __init__(self, access: Access) -> None:
        self._gateway = Gateway(access)

    def items(self, span: Span) -> "tuple[list[Item], int]":
        items: list[Item] = []
        first, revision = span.first, 0
        while True:
            request = {"key": encoded(first), "range_end": encoded(span.end), "limit": str(_PAGE)}
            if revision:
                request["revision"] = str(revision)
            answer = self._gateway.read("/v3/kv/range", request)
            revision = revision or _revision(answer)
            items += map(_item, _objects(answer, "kvs"))
            if not answer.get("more"):
                return items, revision
            if len(items) > _MOST or not items:
                raise StoreError(f"etcd: more than {_MOST} keys from {span.first}")
            first = f"{items[-1].key}\0"

    def watch(self, span: Span, revision: int, stop: "Flag") -> "Iterator[list[Event]]":
        request = {
            "key": encoded(span.first),
            "range_end": encoded(span.end),
            "start_revision": str(revision + 1),
        }
        check = {"key": encoded(span.first), "count_only": True}
        url, response, stream = self._gateway.watch({"create_request": request}, check)
        probe = _Probe(self._gateway, url, check, stream, stop)
        try:
            with response:
                while not stop.is_set():
                    result = _line(url, response)
                    if number(result.get("compact_revision")):
                        raise CompactedError(f"{url}: revision {revision} is compacted")
                    if result.get("canceled"):
                        reason = str(result.get("cancel_reason", "without a reason"))
                        raise StoreUnavailableError(f"{url}: the watch was ended: {reason!r:.200}")
                    if result.get("created"):
                        # etcd waits silently for a revision that is not there yet.
                        if _revision(result) < revision:
                            raise CompactedError(f"{url}: the store is older than revision {revision}")
                        yield []
                    elif events := list(map(_event, _objects(result, "events"))):
                        yield events
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            if not stop.is_set():
                reason = probe.reason or f"{url}: the watch was cut: {error or type(error).__name__}"
                raise StoreUnavailableError(reason) from None
        finally:
            probe.end()

    def create(
        self, key: str, value: bytes, *, lease: int = 0, given: "Mapping[str, bytes | None] | None" = None
    ) -> int:
        return self._write({**(given or {}), key: None}, _put(key, value, lease))

    def replace(self, key: str, value: bytes, expected: bytes, *, lease: int = 0) -> bool:
        return bool(self._write({key: expected}, _put(key, value, lease)))

    def delete(self, key: str, expected: bytes) -> bool:
        return bool(self._write({key: expected}, {"request_delete_range": {"key": encoded(key)}}))

    def grant(self, ttl: int) -> int:
        answer = self._gateway.write("/v3/lease/grant", {"TTL": str(ttl)})
        lease = number(answer.get("ID"))
        if not lease:
            raise StoreError("etcd: a lease without an ID")
        return lease

    def keep_alive(self, lease: int) -> bool:
        answer = self._gateway.read("/v3/lease/keepalive", {"ID": str(lease)})
        result = answer.get("result")
        return isinstance(result, dict) and number(result.get("TTL")) > 0

    def revoke(self, lease: int) -> None:
        self._gateway.write("/v3/lease/revoke", {"ID": str(lease)})

    def _write(self, given: "Mapping[str, bytes | None]", operation: "dict[str, Any]") -> int:
        request = {"compare": [_compare(key, value) for key, value in given.items()], "success": [operation]}
        answer = self._gateway.write("/v3/kv/txn", request)
        return _revision(answer) if answer.get("succeeded") else 0


class _Probe:
    """Reads from the server of a watch, and ends the watch if that gets no answer, or at `stop`."""

    def __init__(
        self, gateway: Gateway, url: str, check: "dict[str, Any]", stream: socket.socket, stop: "Flag"
    ) -> None:
        self._gateway = gateway
        self._url = url
        self._request = check
        self._stream = stream
        self._stop = stop
        self._is_over = threading.Event()
        self.reason = ""
        stream.settimeout(None)
        threading.Thread(target=self._run, daemon=True).start()

    def end(self) -> None:
        self._is_over.set()
        self._close()

    def _run(self) -> None:
        waited = 0.0
        while not self._is_over.wait(0.5):
            waited += 0.5
            if self._stop.is_set():
                break
            if waited >= _PROBE:
                waited = 0.0
                try:
                    self._gateway.ask(self._url, "/v3/kv/range", self._request)
                except StoreError as error:
                    self.reason = str(error)
                    break
        self._close()

    def _close(self) -> None:
        try:
            self._stream.shutdown(socket.SHUT_RDWR)  # unlike close(), it wakes a thread that reads
        except OSError:
            pass
        if self._is_over.is_set():
            self._stream.close()


def _line(url: str, response: http.client.HTTPResponse) -> "dict[str, Any]":
    """Return the next message of a stream.  Raises StoreError, OSError, or ValueError."""
    text = response.readline(_LINE)
    if not text.endswith(b"\n"):
        raise OSError("the server closed the connection" if len(text) < _LINE else "a line is too long")
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("a message is not an object")
    etcd_http.raise_error(url, message)
    result = message.get("result")
    if not isinstance(result, dict):
        raise ValueError("a message has no result")
    return result


def _compare(key: str, value: "bytes | None") -> "dict[str, Any]":
    if value is None:
        return {"key": encoded(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
    return {"key": encoded(key), "target": "VALUE", "result": "EQUAL", "value": encoded(value)}


def _put(key: str, value: bytes, lease: int) -> "dict[str, Any]":
    return {"request_put": {"key": encoded(key), "value": encoded(value), "lease": str(lease)}}


def _objects(answer: "dict[str, Any]", key: str) -> "list[dict[str, Any]]":
    items = answer.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise StoreError(f"etcd: {key} of an answer is not a list of objects")
    return items


def _revision(answer: "dict[str, Any]") -> int:
    header = answer.get("header")
    return number(header.get("revision")) if isinstance(header, dict) else 0


def _item(kv: "dict[str, Any]") -> Item:
    return Item(
        decoded(kv.get("key")).decode("utf-8", "replace"),
        decoded(kv.get("value")),
        number(kv.get("mod_revision")),
        number(kv.get("lease")),
    )


def _event(event: "dict[str, Any]") -> Event:
    kv = event.get("kv")
    item = _item(kv if isinstance(kv, dict) else {})
    return Event(item.key, None if event.get("type") == "DELETE" else item.value, item.revision)
