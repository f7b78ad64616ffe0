# SPDX-License-Identifier: Apache-2.0
"""A throw-away host: what a test may do to a machine, done to namespaces that vanish with the test.

Fresh network, mount and process namespaces.  /run, /etc/cni and /var/lib/cni are empty; what is written to
the rest of /etc and /var/lib is seen in here alone; every process ends with the host.
"""

import os
import subprocess
from types import TracebackType
from typing import Any

from tests.support import cni, place
from tests.support.facts import Facts, compare
from tests.support.namespace import Namespace, Starter, end
from tests.support.see import See
from tests.support.skip import need, need_root
from tests.support.wait import wait_for

# All that there is in a new network namespace.
PRISTINE = "link lo loopback  mtu 65536 mac 00:00:00:00:00:00"
ACCEPT_DAD = "/proc/sys/net/ipv6/conf/default/accept_dad"


class Container(Namespace):
    """A network namespace that plays a container; `path` is where programs of the host find it."""

    def __init__(self, host: "Host", name: str, path: str, pid: int | None = None) -> None:
        super().__init__(host.holder, f"{host.root}{path}", name, host.starter)
        self.host = host
        self.path = path
        self.pid = pid  # of the process that holds it, as the host sees it

    def destroy(self) -> None:
        """Let the namespace end, as it does when a container stops."""
        self.host.containers.remove(self)
        self.host.before = self.host.before.without(f"in {self.name}: ")
        if self.pid is None:
            self.host.starter.delete_net(self.path)
        else:
            self.host.run("kill", "-9", str(self.pid))


class Host(Namespace):
    def __init__(self, implementation: "cni.Implementation | None" = None) -> None:
        need_root()
        need("unshare", "busybox", "ip", "nft")
        starter = Starter(place.make)
        self._process = starter.start(
            place.HOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdout and self._process.stderr
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"no throw-away host: {self._process.stderr.read()}")
        holder = self._process.pid
        super().__init__(holder, f"/proc/{holder}/ns/net", "host", starter)

        self.implementation = implementation
        self.containers: list[Container] = []
        self.attachments: list[cni.Attachment] = []
        self.stay: list[str] = []
        self.before = self.facts()

    def __enter__(self) -> "Host":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.kill(self.holder, 9)
        except ProcessLookupError:
            pass
        self.starter.end()
        end(self._process)

    def container(self, name: str | None = None, *, process: bool = False) -> Container:
        """A new container: a named namespace, or with `process` one that a sleeping process holds."""
        name = name or f"c{len(self.containers) + 1}"
        if process:
            # An orphan, so that it is gone as soon as somebody kills it.
            sleep = "sleep 2147483647 > /dev/null 2>&1 & echo $!"
            pid = int(self.run("unshare", "--net", "sh", "-c", sleep).stdout)
            made = Container(self, name, f"/proc/{pid}/ns/net", pid)
        else:
            made = Container(self, name, f"/run/netns/{name}")
            self.starter.add_net(made.path)
            self.before = self.before.plus([f"in {name}: {PRISTINE}"])
        self.containers.append(made)
        return made

    def outside(self) -> "Outside":
        """A machine on the other side of this host's uplink, `up0`; it knows no route to the containers."""
        need("ip")
        # The ends have different indexes: where they are the same, the kernel takes each for a link without
        # a peer, and lets up to a second pass before it calls them operational.
        made = Outside(self, Outside.NAME, f"/run/netns/{Outside.NAME}")
        self.starter.add_net(made.path)
        made.run("sh", "-c", f"echo 0 > {ACCEPT_DAD}")  # or its first answers wait for a second
        self.run(
            "ip",
            "-batch",
            "-",
            input=f"""\
link add up0 index 1001 type veth peer name up0 index 1002 netns {Outside.NAME}
address add {Outside.HOST}/24 dev up0
address add {Outside.HOST6}/64 dev up0 nodad
link set up0 up
route add default via {Outside.ADDRESS}
""",
        )
        made.run(
            "ip",
            "-batch",
            "-",
            input=f"""\
link set lo up
address add {Outside.ADDRESS}/24 dev up0
address add {Outside.ADDRESS6}/64 dev up0 nodad
link set up0 up
""",
        )
        self.run("ip", "-6", "route", "add", "default", "via", Outside.ADDRESS6)
        # Until the kernel has seen the carrier, the routes are marked, and pasta cannot copy them: "Couldn't
        # set IPv4 route(s) in guest: Invalid argument".
        self._wait_for_rest(made)
        return made

    def nft(self) -> str:
        return self.run("nft", "list", "ruleset").stdout

    def cni(
        self,
        command: str,
        conf: Any,
        container: Container | None = None,
        ifname: str = "eth0",
        plugin: str | None = None,
        **env: str,
    ) -> Any:
        """One request to one plugin executable, by the CNI protocol.

        Returns what it prints, parsed; raises CniFailure with what it reports.  `env` adds to the variables,
        or replaces them.  What a test leaves attached gets a DEL after it, so that every test tests DEL too.
        """
        assert self.implementation is not None, (
            "a test of plugins belongs where `implementation` is a fixture"
        )
        plugin = plugin or conf["type"]
        attachment = cni.Attachment(conf, container, ifname, plugin, env)
        result = cni.call(self, self.implementation, command, attachment)
        if command == "ADD":
            self.attachments.append(attachment)
            attachment.result = result
        elif command == "DEL":
            self.attachments = [known for known in self.attachments if known.key != attachment.key]
        return result

    def delete_attachments(self) -> None:
        """DEL for all that is still attached, the last one first, with the result of ADD as runtimes do."""
        for attachment in reversed(self.attachments):
            conf = cni.with_previous_result(attachment.conf, attachment.result)
            self.cni(
                "DEL", conf, attachment.container, attachment.ifname, attachment.plugin, **attachment.env
            )

    def leaves(self, *patterns: str) -> None:
        """Say what this test means to leave: `fnmatch` patterns of lines that the leak check prints."""
        self.stay += patterns

    def save_state(self) -> None:
        """Save what the leak check compares with, when the kernel has done what was asked of it."""
        self._wait_for_rest(*(one for one in self.containers if one.pid is None))
        self.before = self.facts()

    def _wait_for_rest(self, *containers: Container) -> None:
        spaces: list[Namespace] = [self, *containers]

        def pending() -> list[str]:
            return [f"{space.name}: {line}" for space in spaces for line in space.inside(See).pending]

        wait_for(lambda: not pending(), lambda: f"the kernel comes to rest: {pending()}")

    def facts(self) -> Facts:
        return Facts.of(self, self.containers)

    def check_leaks(self) -> None:
        """Fail if the host is not as it was when it was made."""
        stay = list(self.stay)
        if self.implementation is not None:
            stay += self.implementation.leaves
        compare(self.before, self.facts, stay)


class Outside(Container):
    """The outside world.  Its addresses are of the ranges that are kept for documentation."""

    NAME = "outside"
    HOST, ADDRESS = "198.51.100.1", "198.51.100.2"
    HOST6, ADDRESS6 = "2001:db8:100::1", "2001:db8:100::2"
