# SPDX-License-Identifier: Apache-2.0
"""The JSON of `priv-net-run --json`: a line when the networks are up, and one at the end."""

import os

from cnihook.fast import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.runtime.addition import Attachment


class Report:
    """JSON on a descriptor, one value per line."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def networks_are_up(self, container_id: str, command: int, attached: "list[Attachment]") -> None:
        """Report the networks.  `command`: the PID of the process that is about to become the command."""
        networks = [
            {
                "network": one.network.name,
                "ifname": one.record.ifname,
                "addresses": [str(ip.net) for ip in one.result.ips],
                "result": one.result.to_json(one.network.version),
            }
            for one in attached
        ]
        netns = f"/proc/{command}/ns/net"  # visible to each process that sees the command
        self._write({"id": container_id, "netns": netns, "pid": command, "networks": networks})

    def command_ended(self, status: int) -> None:
        self._write({"status": status})

    def _write(self, value: "dict[str, object]") -> None:
        data = fastjson.dumps(value).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise OSError(error.errno, f"--json: {error.strerror}") from None
