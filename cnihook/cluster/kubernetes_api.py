# SPDX-License-Identifier: Apache-2.0
"""
Requests to the API server of Kubernetes from a pod: its service account, pages of a list, a watch.

The kubelet writes a new token about every hour, before the old one ends.  So the file is read again after a
minute, and at once if the server does not accept the token.
"""

import http.client
import json
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from cnihook.cluster.store import CompactedError, StoreError, StoreUnavailableError
from cnihook.fast import statefile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event as Flag
    from typing import Any

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_PAGE = 500  # objects of one answer: a node has about 20 KB
_TIMEOUT = 10.0  # seconds for a connection, and for each part of an answer
_WATCH = 240  # seconds after which the server ends a watch; it sends a bookmark about each minute
_TOKEN_LIFE = 60.0  # seconds until the file is read again
_LONGEST, _LINE = 64 << 20, 4 << 20  # bytes of an answer, and of an event
_GONE, _UNAUTHORIZED, _CONFLICT = 410, 401, 409
_REFUSALS = (400, 403, 404, 405, 415, 422)


class ConflictError(StoreError):
    """The object has changed since the caller read it."""


@dataclass
class _Token:
    text: str = ""
    read_at: float = float("-inf")


class Api:
    """The API server.  Threads may share it: each request has a connection of its own."""

    def __init__(self, url: str, folder: str = ACCOUNT) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StoreError(f"{url!r:.100} is not the URL of an API server")
        self.url = url.rstrip("/")
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._has_tls = parts.scheme == "https"
        self._folder = folder
        self._token = _Token()
        self._lock = threading.Lock()

    def get(self, path: str) -> "dict[str, Any]":
        """Return an object."""
        return self._exchange("GET", path)

    def patch(self, path: str, change: "dict[str, Any]") -> "dict[str, Any]":
        """Merge a change into an object, and return it.  Raises ConflictError."""
        return self._exchange("PATCH", path, json.dumps(change).encode(), "application/merge-patch+json")

    def pages(self, path: str) -> "Iterator[tuple[list[dict[str, Any]], str]]":
        """Yield the objects of a list, page by page, each with the revision of the whole.

        Raises CompactedError if the list takes so long that its revision is forgotten.
        """
        parameters = {"limit": str(_PAGE)}
        while True:
            answer = self._exchange("GET", f"{path}?{urlencode(parameters)}")
            items, about = answer.get("items") or [], answer.get("metadata") or {}
            if not isinstance(items, list) or not isinstance(about, dict):
                raise StoreError(f"{self.url}: the answer is not a list")
            yield [item for item in items if isinstance(item, dict)], str(about.get("resourceVersion", ""))
            parameters["continue"] = str(about.get("continue") or "")
            if not parameters["continue"]:
                return

    def watch(self, path: str, revision: str, stop: "Flag") -> "Iterator[tuple[str, dict[str, Any]]]":
        """Yield (type, object) of each event after a revision; first ("", {}) when the watch has begun.

        It ends when the server ends it, which is usual, or with `stop`.  Raises CompactedError if the
        revision is forgotten, StoreUnavailableError if the connection is cut.
        """
        parameters = {
            "watch": "1",
            "resourceVersion": revision,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH),
        }
        connection, response = self._send("GET", f"{path}?{urlencode(parameters)}")
        is_over = threading.Event()
        try:
            if response.status != 200:
                raise self._refusal(response.status, response.read(_LINE))
            stream: socket.socket = connection.sock
            stream.settimeout(_WATCH + 2 * _TIMEOUT)
            threading.Thread(target=_end_with, args=(stop, is_over, stream), daemon=True).start()
            yield "", {}
            while line := response.readline(_LINE):
                if not line.endswith(b"\n"):
                    raise OSError("an event is cut")
                yield self._event(json.loads(line))
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not stop.is_set():
                raise self._unavailable(error, "the watch was cut") from None
        finally:
            is_over.set()
            connection.close()

    def _event(self, event: "Any") -> "tuple[str, dict[str, Any]]":
        content = event.get("object") if isinstance(event, dict) else None
        if not isinstance(content, dict):
            raise ValueError("an event has no object")
        if event.get("type") == "ERROR":
            code = content.get("code")
            raise self._refusal(code if isinstance(code, int) else 500, json.dumps(content).encode())
        return str(event.get("type")), content

    # One request

    def _exchange(self, method: str, path: str, body: bytes = b"", kind: str = "") -> "dict[str, Any]":
        connection, response = self._send(method, path, body, kind)
        try:
            text = response.read(_LONGEST + 1)
            if response.status not in (200, 201):
                raise self._refusal(response.status, text)
            if len(text) > _LONGEST:
                raise StoreError(f"{self.url}: the answer is longer than {_LONGEST >> 20} MiB")
            answer = json.loads(text)
            if isinstance(answer, dict):
                return answer
            raise ValueError("the answer is not an object")
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            raise self._unavailable(error) from None
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, body: bytes = b"", kind: str = ""
    ) -> "tuple[http.client.HTTPConnection, http.client.HTTPResponse]":
        """Send a request; once more with a token that is read again, if the server refuses the token."""
        connection, response = self._try(method, path, body, kind, read_again=False)
        if response.status == _UNAUTHORIZED:
            connection.close()
            connection, response = self._try(method, path, body, kind, read_again=True)
        return connection, response

    def _try(
        self, method: str, path: str, body: bytes, kind: str, *, read_again: bool
    ) -> "tuple[http.client.HTTPConnection, http.client.HTTPResponse]":
        connection = None
        try:
            connection = self._connect()
            headers = {"Accept": "application/json"}
            if token := self._bearer(read_again=read_again):
                headers["Authorization"] = f"Bearer {token}"
            if kind:
                headers["Content-Type"] = kind
            connection.request(method, path, body or None, headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            if connection:
                connection.close()
            raise self._unavailable(error) from None

    def _connect(self) -> http.client.HTTPConnection:
        if not self._has_tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT)
        # Made each time: the authority's certificates change, too.
        context = ssl.create_default_context(cafile=f"{self._folder}/ca.crt")
        return http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT, context=context)

    def _bearer(self, *, read_again: bool) -> str:
        with self._lock:
            now = time.monotonic()
            if read_again or now - self._token.read_at > _TOKEN_LIFE:
                path = f"{self._folder}/token"
                try:
                    # The kubelet replaces symbolic links.
                    text = (statefile.content(path, longest=1 << 16, follow=True) or b"").decode().strip()
                except ValueError as error:
                    raise StoreError(f"{path}: {error}") from None
                if not text.isprintable():
                    raise StoreError(f"{path}: is not a token")
                self._token = _Token(text, now)
            return self._token.text

    def _refusal(self, code: int, text: bytes) -> StoreError:
        try:
            message = json.loads(text).get("message")
        except (ValueError, AttributeError, RecursionError):
            message = None
        reason = message if isinstance(message, str) else f"HTTP {code}"
        line = f"{self.url}: {''.join(char if char.isprintable() else ' ' for char in reason[:300])}"
        if code == _GONE:
            return CompactedError(line)
        if code == _CONFLICT:
            return ConflictError(line)
        return StoreError(line) if code in _REFUSALS else StoreUnavailableError(line)

    def _unavailable(self, error: Exception, what: str = "") -> StoreUnavailableError:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return StoreUnavailableError(": ".join(filter(None, (self.url, what, text[:200]))))


def in_cluster() -> Api:
    """Return the API server of the cluster that this pod is in.  Raises StoreError outside of a pod."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    if not host:
        raise StoreError("this is not a pod: KUBERNETES_SERVICE_HOST is not set")
    return Api(f"https://{f'[{host}]' if ':' in host else host}:{port or 443}")


def _end_with(stop: "Flag", is_over: threading.Event, stream: socket.socket) -> None:
    """Wake the thread that reads a stream when `stop` is set."""
    while not is_over.wait(0.5):
        if stop.is_set():
            try:
                stream.shutdown(socket.SHUT_RDWR)  # unlike close(), it wakes the thread
            except OSError:
                pass
            return
