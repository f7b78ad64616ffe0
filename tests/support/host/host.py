# SPDX-License-Identifier: Apache-2.0
"""A throw-away host: namespaces that stand for a machine, and end with the test.

It has new network, mount and process namespaces.  /run, /etc/cni and /var/lib/cni are empty.  Files that are
written to the rest of /etc and /var/lib are visible in the host only.  Every process ends with the host.
"""

import fcntl
import os
import subprocess
from types import TracebackType
from typing import Any

from tests.support.host import enclosure
from tests.support.host.leaks import HostState, compare
from tests.support.host.namespace import Namespace, Starter, end
from tests.support.host.netns_state import NetnsState
from tests.support.plugins import cni
from tests.support.skip import need, need_root
from tests.support.wait import wait_for

# The only link of a new network namespace, as the leak check lists it.
PRISTINE = "link lo loopback  mtu 65536 mac 00:00:00:00:00:00"
ACCEPT_DAD = "net/ipv6/conf/default/accept_dad"


class Container(Namespace):
    """A network namespace that stands for a container.  `path`: the namespace, for programs of the host."""

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
        starter = Starter(enclosure.make)
        self._process = starter.start(
            enclosure.HOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
        self.waits_for_endings = True  # after each program
        self.before = HostState.of_new(self)

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
        """Create a container: a named namespace, or with `process` one that a sleeping process holds."""
        name = name or f"c{len(self.containers) + 1}"
        if process:
            # The process is an orphan, so a kill removes it at once.
            sleep = "sleep 2147483647 > /dev/null 2>&1 & echo $!"
            pid = int(self.run("unshare", "--net", "sh", "-c", sleep).stdout)
            container = Container(self, name, f"/proc/{pid}/ns/net", pid)
        else:
            container = Container(self, name, f"/run/netns/{name}")
            self.starter.add_net(container.path)
            self.before = self.before.plus([f"in {name}: {PRISTINE}"])
        self.containers.append(container)
        return container

    def outside(self) -> "Outside":
        """Create a machine at the far end of the uplink, `up0`.  It has no route to the containers."""
        need("ip")
        # The ends have different indexes.  With equal ones the kernel takes each for a link without a peer,
        # and waits up to a second before it marks them operational.
        outside = Outside(self, Outside.NAME, f"/run/netns/{Outside.NAME}")
        self.starter.add_net(outside.path)
        outside.set_sysctl(ACCEPT_DAD, "0")  # otherwise its first answers take a second
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
        outside.run(
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
        # Wait for the carrier: before, the routes have a flag with which pasta cannot copy them: "Couldn't
        # set IPv4 route(s) in guest: Invalid argument".
        self._wait_for_rest(outside)
        return outside

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
        """Call one plugin executable by the CNI protocol.

        Returns its parsed output.  Raises CniFailure with the error that it prints.  `env` adds variables or
        replaces them.  Attachments that a test leaves get a DEL after it, so that every test also tests DEL.
        """
        assert self.implementation is not None, (
            "a test of plugins must be in a folder with the fixture `implementation`"
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
        """Call DEL for all attachments, the last one first, with the result of ADD as runtimes do."""
        for attachment in reversed(self.attachments):
            conf = cni.with_previous_result(attachment.conf, attachment.result)
            self.cni(
                "DEL", conf, attachment.container, attachment.ifname, attachment.plugin, **attachment.env
            )

    def leaves(self, *patterns: str) -> None:
        """Accept what this test leaves on purpose: `fnmatch` patterns of the leak check's lines."""
        self.stay += patterns

    def save_state(self) -> None:
        """Wait until the kernel has finished its work, and save the state for the leak check."""
        self._wait_for_rest(*(one for one in self.containers if one.pid is None))
        self.before = self.state()

    def _wait_for_rest(self, *containers: Container) -> None:
        spaces: list[Namespace] = [self, *containers]

        def pending() -> list[str]:
            return [f"{space.name}: {line}" for space in spaces for line in space.inside(NetnsState).pending]

        wait_for(lambda: not pending(), lambda: f"the kernel comes to rest: {pending()}")

    def state(self) -> HostState:
        return HostState.of(self, self.containers)

    def run(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program like Namespace.run(), and wait until what ended containers had is removed."""
        try:
            return super().run(*argv, **options)
        finally:
            if self.waits_for_endings:
                self.wait_for_endings()

    def wait_for_endings(self) -> None:
        """Wait until no process removes what ended containers had."""
        wait_for(lambda: not self._is_ending(), "the removal of what ended containers had")

    def _is_ending(self) -> bool:
        for path in (self.root / "run/cnihook/lock").glob("ending-*.lock"):
            try:
                with open(path) as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                pass
            except BlockingIOError:
                return True
        return False

    def check_leaks(self) -> None:
        """Fail if the host is not as it was when it was made."""
        stay = list(self.stay)
        if self.implementation is not None:
            stay += self.implementation.leaves
        compare(self.before, self.state, stay)


class Outside(Container):
    """A machine outside.  Its addresses are of the ranges that are reserved for documentation."""

    NAME = "outside"
    HOST, ADDRESS = "198.51.100.1", "198.51.100.2"
    HOST6, ADDRESS6 = "2001:db8:100::1", "2001:db8:100::2"
