# SPDX-License-Identifier: Apache-2.0
"""
Requests to etcd's JSON gateway: endpoints, TLS, a user, time limits, and errors as one line.

The gateway is part of each etcd server.  Its integers of 64 bits are strings, and values that are zero or
false are left out.
"""

import base64
import http.client
import json
import os
import random
import socket
import ssl
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cnihook.cluster.store import CompactedError, StoreError, StoreUnavailableError
from cnihook.fast import statefile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TIMEOUT = 5.0  # seconds for a connection, and for each part of an answer
LONGEST = 32 << 20  # bytes of an answer; etcd's own limit for a request is 1.5 MiB
_DEAD = 20  # seconds until the kernel gives up a connection whose data is not acknowledged
_MOST_ENDPOINTS = 16

# <google/rpc/code.proto>
_INVALID, _DENIED, _EXHAUSTED, _PRECONDITION, _OUT_OF_RANGE, _UNAUTHENTICATED = 3, 7, 8, 9, 11, 16


@dataclass(frozen=True)
class Access:
    """The servers of etcd, and the files that they require.

    ca, cert, key: files of TLS: the authority of the server's certificate, this host's certificate, its key
    user_file: a file with one line, USER:PASSWORD
    """

    endpoints: "tuple[str, ...]"
    ca: str = ""
    cert: str = ""
    key: str = ""
    user_file: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.endpoints) <= _MOST_ENDPOINTS:
            raise StoreError(f"etcd: needs 1 to {_MOST_ENDPOINTS} URLs")
        for url in self.endpoints:
            _address(url)
        if bool(self.cert) != bool(self.key):
            raise StoreError("etcd: a certificate needs its key, and a key its certificate")


def _address(url: str) -> "tuple[bool, str, int]":
    """Return whether a URL needs TLS, its host, and its port.  Raises StoreError."""
    try:
        parts = urlsplit(url)
        if (
            parts.scheme in ("http", "https")
            and parts.hostname
            and not (parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None)
            and len(url) <= 300
            and url.isprintable()
        ):
            return parts.scheme == "https", parts.hostname, parts.port or 2379
    except ValueError:
        pass
    raise StoreError(f"etcd: {url!r:.100} is not a URL such as https://192.0.2.1:2379")


@dataclass
class _Tokens:
    """The tokens of the user, by endpoint: a server may not know those of another one."""

    by_url: "dict[str, str]" = field(default_factory=dict)


class Gateway:
    """The servers of one etcd cluster.  Threads may share it: each has connections of its own."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._urls = random.sample(access.endpoints, len(access.endpoints))  # hosts use different servers
        self._tokens = _Tokens()
        self._local = threading.local()
        self._context: ssl.SSLContext | None = None

    def read(self, path: str, body: "dict[str, Any]") -> "dict[str, Any]":
        """Return the answer of the first server that gives one.  Raises StoreError."""
        return self._try_all(path, body, is_write=False)

    def write(self, path: str, body: "dict[str, Any]") -> "dict[str, Any]":
        """Return the answer to a change.  It is not sent twice: an error may mean that it was made."""
        return self._try_all(path, body, is_write=True)

    def ask(self, url: str, path: str, body: "dict[str, Any]") -> "dict[str, Any]":
        """Return the answer of one server, by a connection that is kept."""
        return self._with_token(url, path, body, is_fresh=False)

    def watch(
        self, body: "dict[str, Any]", probe: "dict[str, Any]"
    ) -> "tuple[str, http.client.HTTPResponse, socket.socket]":
        """Return a server's URL, its answer that does not end, and the socket.  Raises StoreError.

        A watch that etcd refuses ends without a code, so the range read `probe` comes first: it gets the
        token that this server needs.
        """
        reasons = []
        for url in self._order():
            try:
                self.ask(url, "/v3/kv/range", probe)
                connection, response = self._send(
                    url, "/v3/watch", body, {"Grpc-Metadata-Hasleader": "true"}
                )
                if response.status == 200:
                    self._prefer(url)
                    # The response has a file of the socket; the caller closes both.
                    stream = connection.sock
                    connection.sock = None
                    return url, response, stream
                answer = _decode(url, response)
                connection.close()
                raise _refusal(url, answer)
            except StoreUnavailableError as error:
                reasons.append(str(error))
            except (OSError, http.client.HTTPException) as error:
                reasons.append(_reason(url, error))
        raise StoreUnavailableError("; ".join(reasons))

    def _order(self) -> "list[str]":
        return list(self._urls)

    def _prefer(self, url: str) -> None:
        """Try this server first from now on."""
        self._urls = [url, *(other for other in self._urls if other != url)]

    def _try_all(self, path: str, body: "dict[str, Any]", *, is_write: bool) -> "dict[str, Any]":
        reasons = []
        for url in self._order():
            try:
                answer = self._with_token(url, path, body, is_fresh=is_write)
                self._prefer(url)
                return answer
            except StoreUnavailableError as error:
                reasons.append(str(error))
                if is_write and not isinstance(error, _NotSentError):
                    break
        raise StoreUnavailableError("; ".join(reasons))

    def _with_token(
        self, url: str, path: str, body: "dict[str, Any]", *, is_fresh: bool
    ) -> "dict[str, Any]":
        for _attempt in range(2):
            answer = self._exchange(url, path, body, is_fresh=is_fresh)
            if "error" not in answer:
                return answer
            if not self._renew(url, answer):
                break
        raise _refusal(url, answer)

    def _exchange(self, url: str, path: str, body: "dict[str, Any]", *, is_fresh: bool) -> "dict[str, Any]":
        connections = self._connections()
        connection = None if is_fresh else connections.pop(url, None)
        is_kept = connection is not None
        while True:
            try:
                connection, response = self._send(url, path, body, {}, connection)
                answer = _decode(url, response)
            except (OSError, http.client.HTTPException) as error:
                if not is_kept:  # a server closes connections that it has not used for long
                    raise StoreUnavailableError(_reason(url, error)) from None
                connection, is_kept = None, False
                continue
            except BaseException:
                if connection:
                    connection.close()
                raise
            if is_fresh or response.will_close:
                connection.close()
            else:
                connections[url] = connection
            return answer

    def _connections(self) -> "dict[str, http.client.HTTPConnection]":
        if not hasattr(self._local, "connections"):
            self._local.connections = {}
        connections: dict[str, http.client.HTTPConnection] = self._local.connections
        return connections

    def _send(
        self,
        url: str,
        path: str,
        body: "dict[str, Any]",
        headers: "dict[str, str]",
        connection: "http.client.HTTPConnection | None" = None,
    ) -> "tuple[http.client.HTTPConnection, http.client.HTTPResponse]":
        connection = connection or self._connect(url)
        token = self._tokens.by_url.get(url)
        if token:
            headers = {**headers, "Authorization": token}
        try:
            connection.request(
                "POST", path, json.dumps(body), {"Content-Type": "application/json", **headers}
            )
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _connect(self, url: str) -> http.client.HTTPConnection:
        has_tls, host, port = _address(url)
        try:
            if has_tls:
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                    host, port, timeout=TIMEOUT, context=self._tls()
                )
            else:
                connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
            connection.connect()
        except OSError as error:
            raise _NotSentError(_reason(url, error)) from None
        for option, value in (
            (socket.TCP_KEEPIDLE, 10),
            (socket.TCP_KEEPINTVL, 5),
            (socket.TCP_KEEPCNT, 2),
            (socket.TCP_USER_TIMEOUT, _DEAD * 1000),
        ):
            connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def _tls(self) -> ssl.SSLContext:
        if not self._context:
            access = self._access
            try:
                context = ssl.create_default_context(cafile=access.ca or None)
                if access.cert:
                    context.load_cert_chain(access.cert, access.key)
            except (OSError, ValueError) as error:
                files = ", ".join(filter(None, (access.ca, access.cert, access.key)))
                raise StoreError(f"etcd: {files}: {error}") from None
            self._context = context
        return self._context

    def _renew(self, url: str, answer: "dict[str, Any]") -> bool:
        """Get a new token, if that can be a cure.  Returns False if it cannot."""
        text = _message(answer)
        is_old = _code(answer) == _UNAUTHENTICATED or "auth: revision in header is old" in text
        is_missing = url not in self._tokens.by_url and (
            _code(answer) == _DENIED or "user name is empty" in text
        )
        if not self._access.user_file or not (is_old or is_missing):
            return False
        self._tokens.by_url.pop(url, None)
        name, password = _user(self._access.user_file)
        answer = self._exchange(
            url, "/v3/auth/authenticate", {"name": name, "password": password}, is_fresh=True
        )
        token = answer.get("token")
        if not isinstance(token, str) or not token.isprintable() or len(token) > 8192:
            raise _refusal(url, answer)
        self._tokens.by_url[url] = token
        return True


class _NotSentError(StoreUnavailableError):
    """No server has received the request."""


def _decode(url: str, response: http.client.HTTPResponse) -> "dict[str, Any]":
    """Return an answer.  One that is not JSON becomes an error of the server."""
    text = response.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise StoreError(f"{url}: the answer is longer than {LONGEST >> 20} MiB")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        if "error" not in answer and response.status != 200:
            answer["error"] = f"HTTP {response.status}"
        return answer
    if response.status == 404:
        return {"error": "does not have etcd's JSON gateway (/v3)", "code": _PRECONDITION}
    if b"CommonName of client" in text[:1000]:
        reason = "etcd with users refuses a TLS certificate that has a common name (CN); use one without"
        return {"error": reason, "code": _PRECONDITION}
    return {"error": f"HTTP {response.status}: the answer is not JSON"}


def _code(answer: "dict[str, Any]") -> int:
    details = answer.get("error")
    code = answer.get("code") or (
        details.get("grpc_code") or details.get("code") if isinstance(details, dict) else 0
    )
    return code if isinstance(code, int) else 0


def _message(answer: "dict[str, Any]") -> str:
    details = answer.get("error")
    text = details.get("message") if isinstance(details, dict) else details
    text = text if isinstance(text, str) else "an answer without a reason"
    return "".join(char if char.isprintable() else " " for char in text[:300])


def _refusal(url: str, answer: "dict[str, Any]") -> StoreError:
    """Return the error that an answer is."""
    code, text = _code(answer), f"{url}: {_message(answer)}"
    if code == _OUT_OF_RANGE:
        return CompactedError(text)
    if "space exceeded" in text:
        return StoreError(f"{text}; compact and defragment etcd, then `etcdctl alarm disarm`")
    if code in (_INVALID, _DENIED, _EXHAUSTED, _PRECONDITION, _UNAUTHENTICATED):
        return StoreError(text)
    return StoreUnavailableError(text)


def raise_error(url: str, answer: "dict[str, Any]") -> None:
    """Raise the error that a part of a stream is; do nothing if it is none."""
    if "error" in answer:
        raise _refusal(url, answer)


def _reason(url: str, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{url}: no answer within {TIMEOUT:g} s"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{url}: {''.join(char if char.isprintable() else ' ' for char in text[:200])}"


def _user(path: str) -> "tuple[str, str]":
    try:
        text = (statefile.content(path, longest=4096, follow=True) or b"").decode()
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise StoreError(f"etcd: {path}: {reason}") from None
    name, colon, password = text.rstrip("\r\n").partition(":")
    if not (name and colon and password) or "\n" in text.rstrip("\r\n"):
        raise StoreError(f"etcd: {path}: must be one line, USER:PASSWORD")
    return name, password


def encoded(text: "str | bytes") -> str:
    """Return a key or a value as the gateway needs it."""
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def decoded(value: object) -> bytes:
    """Return the bytes of a key or a value.  Raises StoreError."""
    try:
        return base64.b64decode(value) if isinstance(value, str) else b""
    except ValueError:
        raise StoreError("etcd: an answer has a value that is not base64") from None


def number(value: object) -> int:
    """Return an integer of an answer; one that is left out is 0.  Raises StoreError."""
    try:
        return int(value) if isinstance(value, (int, str)) and len(str(value)) <= 20 else 0
    except ValueError:
        raise StoreError("etcd: an answer has a number that is not one") from None
