# SPDX-License-Identifier: Apache-2.0
"""The real firewalld, on a bus of its own in a throw-away host; it starts in a second."""

import re

from tests.support.host.host import Host
from tests.support.host.namespace import Process
from tests.support.runtimes.oci import wait_for
from tests.support.skip import need

BUS = "/run/dbus/system_bus_socket"
# Every user of the throw-away host may do everything.
CONFIGURATION = f"""\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={BUS}</listen>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


def start_bus(host: Host) -> Process:
    need("dbus-daemon")
    host.write("/run/dbus/bus.conf", CONFIGURATION)
    bus = host.popen("dbus-daemon", "--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile")
    wait_for(lambda: host.exists(BUS), "the bus")
    host.leaves("dir /run/dbus", "file /run/dbus/*", "process dbus-daemon *")
    return bus


class Firewalld:
    """A running firewalld.  It forwards only packets of a zone that accepts them."""

    _NAME = "org.fedoraproject.FirewallD1"

    def __init__(self, host: Host) -> None:
        need("firewalld", "dbus-send")
        start_bus(host)
        self._host = host
        self._process = host.popen("firewalld", "--nofork", "--nopid", "--log-target=console")
        host.leaves("dir /run/firewalld", "file /run/firewalld/*", "nft: table inet firewalld*", "process *")
        wait_for(lambda: self._send("zone.getSources", "trusted", check=False), "firewalld")

    def _send(self, method: str, *arguments: str, check: bool = True) -> str:
        """Call a method with dbus-send, because firewall-cmd takes ten times as long."""
        return self._host.run(
            "dbus-send",
            "--system",
            "--print-reply",
            f"--dest={self._NAME}",
            f"/{self._NAME.replace('.', '/')}",
            f"{self._NAME}.{method}",
            *(f"string:{argument}" for argument in arguments),
            check=check,
        ).stdout

    def sources(self, zone: str = "trusted") -> list[str]:
        return re.findall('string "(.*)"', self._send("zone.getSources", zone))

    def add_source(self, zone: str, source: str) -> None:
        self._send("zone.addSource", zone, source)

    def reload(self) -> None:
        self._send("reload")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        # The table of firewalld 2.3 outlives it: `flags owner,persist`.
        self._host.run("nft", "delete", "table", "inet", "firewalld", check=False)
