# SPDX-License-Identifier: Apache-2.0
"""An API server of Kubernetes with nodes only: lists in pages, watches with bookmarks, patches, tokens.

The shapes and codes are those of the API reference.  No kubelet or controller runs.
"""

import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Node = dict[str, Any]


def node(number: int, *cidrs: str, name: str = "") -> Node:
    return {
        "metadata": {"name": name or f"n{number}", "annotations": {"other": "kept"}},
        "spec": {"podCIDRs": list(cidrs)} if cidrs else {},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": f"n{number}"},
                {"type": "InternalIP", "address": f"172.16.0.{number}"},
            ],
            "nodeInfo": {"machineID": f"{number:032x}"},
            "images": [],
        },
    }


class ApiServer:
    """`with ApiServer() as api:` serves at api.url.

    tokens: those that are accepted
    oldest: the first revision that a watch may begin at
    watches: the revisions at which watches began
    refuse: a code with which the next patch is answered
    """

    def __init__(self, certificate: str = "") -> None:
        """Listen.  `certificate`: a file of TLS, beside its key."""
        self.nodes: dict[str, Node] = {}
        self.revision = 100
        self.oldest = 0
        self.tokens = {"first"}
        self.watches: list[int] = []
        self.lists = 0
        self.refuse = 0
        self._log: list[tuple[int, str, Node]] = []
        self._changed = threading.Condition()
        self._streams: list[socket.socket] = []
        self._ended = 0
        server = self
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
        self._http.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, f"{certificate}.key")
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "ApiServer":
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def __exit__(self, *error: object) -> None:
        self.cut()
        self._http.shutdown()
        self._http.server_close()

    def put(self, changed: Node) -> None:
        name = changed["metadata"]["name"]
        with self._changed:
            kind = "MODIFIED" if name in self.nodes else "ADDED"
            self.revision += 1
            changed["metadata"]["resourceVersion"] = str(self.revision)
            self.nodes[name] = json.loads(json.dumps(changed))
            self._add(kind, self.nodes[name])

    def delete(self, name: str) -> None:
        with self._changed:
            self.revision += 1
            gone = self.nodes.pop(name)
            gone["metadata"]["resourceVersion"] = str(self.revision)
            self._add("DELETED", gone)

    def bookmark(self) -> None:
        """Advance the revision, as changes of other objects do, and report it to the watches."""
        with self._changed:
            self.revision += 10
            self._add("BOOKMARK", {"metadata": {"resourceVersion": str(self.revision)}})

    def expire(self) -> None:
        """Report to the watches that their revision is forgotten, and forget it."""
        with self._changed:
            self.revision += 1
            self.oldest = self.revision
            self._add("ERROR", {"code": 410, "reason": "Expired", "message": "too old resource version"})

    def end_watches(self) -> None:
        """End all watches as the server does after their time."""
        with self._changed:
            self._ended += 1
            self._changed.notify_all()

    def cut(self) -> None:
        """Cut the connections of all watches."""
        with self._changed:
            for stream in self._streams:
                try:
                    stream.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self._streams.clear()
            self._ended += 1
            self._changed.notify_all()

    def _add(self, kind: str, content: Node) -> None:
        self._log.append((self.revision, kind, json.loads(json.dumps(content))))
        self._changed.notify_all()

    def wait_for_watches(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.watches) >= count, 30)

    # For the handler

    def listed(self, limit: int, begin: str) -> dict[str, Any]:
        with self._changed:
            self.lists += 1
            names = sorted(self.nodes)
            first = int(begin or 0)
            about = {"resourceVersion": str(self.revision)}
            if first + limit < len(names):
                about["continue"] = str(first + limit)
            return {"metadata": about, "items": [self.nodes[name] for name in names[first : first + limit]]}

    def stream(self, connection: socket.socket, revision: int, send: Any) -> None:
        with self._changed:
            self._streams.append(connection)
            self.watches.append(revision)
            ended = self._ended
            self._changed.notify_all()
        place = 0
        while True:
            with self._changed:
                while len(self._log) == place and self._ended == ended:
                    self._changed.wait()
                if self._ended != ended:
                    return
                entries, place = self._log[place:], len(self._log)
            for number, kind, content in entries:
                if number > revision:
                    send({"type": kind, "object": content})


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

        def answer(self, code: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, code: int, message: str) -> None:
            self.answer(code, {"kind": "Status", "code": code, "message": message})

        def is_known(self) -> bool:
            if self.headers.get("Authorization", "").removeprefix("Bearer ") in server.tokens:
                return True
            self.refuse(401, "Unauthorized")
            return False

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            options = {key: values[0] for key, values in parse_qs(parts.query).items()}
            if not self.is_known():
                return
            name = parts.path.removeprefix("/api/v1/nodes").strip("/")
            if name:
                if name in server.nodes:
                    self.answer(200, server.nodes[name])
                else:
                    self.refuse(404, f'nodes "{name}" not found')
            elif "watch" not in options:
                self.answer(200, server.listed(int(options["limit"]), options.get("continue", "")))
            elif int(options["resourceVersion"]) < server.oldest:
                self.refuse(410, "too old resource version")
            else:
                assert options["allowWatchBookmarks"] == "true"
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.flush()
                try:
                    server.stream(self.connection, int(options["resourceVersion"]), self.send)
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    self.close_connection = True

        def send(self, event: dict[str, Any]) -> None:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()

        def do_PATCH(self) -> None:
            change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.is_known():
                return
            if server.refuse:
                code, server.refuse = server.refuse, 0
                self.refuse(code, "refused")
                return
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            name = self.path.removeprefix("/api/v1/nodes/").removesuffix("/status")
            changed = json.loads(json.dumps(server.nodes[name]))
            changed["metadata"]["annotations"] |= change["metadata"]["annotations"]
            server.put(changed)
            self.answer(200, server.nodes[name])

    return Handler
