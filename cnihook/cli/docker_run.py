# SPDX-License-Identifier: Apache-2.0
"""
docker-run: `docker run` with networks from CNI, against any docker daemon of this machine.

A pause container holds a network namespace, the networks are attached to it, and the container that was
asked for shares it.  A keeper process takes all of that away when that one has ended (see docker_keeper).
"""

import os
import secrets
import signal
import sys
from collections.abc import Iterable

from cnihook import attach
from cnihook.attach import Attachment, Container, Settings
from cnihook.cli.docker_keeper import LABEL, Keeper
from cnihook.cli.docker_options import Plan, Refused
from cnihook.cli.docker_pause import Docker, Pause
from cnihook.lean import command, signals
from cnihook.lean.job import Job
from cnihook.lean.words import describe, one_line
from cnihook.linux import libc
from cnihook.linux.netns import NetNS
from cnihook.log import Log
from cnihook.oci import wants, words
from cnihook.runtime.wants import Served, Wants

_FAILED = 125  # as docker run says that the container is not to blame
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"  # for plugins: they call programs of the administrator

HELP = """\
usage: docker-run [--network NAME[:IFNAME]]... [OPTION]... IMAGE [COMMAND [ARG]...]

`docker run` with networks from CNI: those of /etc/cni/net.d (or $NETCONFPATH), on eth0, eth1, ...

  --network NAME[:IFNAME]   a network to attach, repeatable; without it, all that there are
  --network host|none|container:NAME
                            none of CNI's business: the same as `docker run`

All other options are those of `docker run`, and so is the exit code; 125: the container was not started.
--publish, --ip, --ip6 and --mac-address are served by the networks, and so are these, which docker lacks:
--bandwidth in=RATE,out=RATE, --route NET[=GATEWAY], --no-default-route.
Not for CNI networks: --publish-all, --link, --network-alias, --restart always.

A second, small container "cnihook-pause-..." holds the network, and goes when the container has ended.
`docker restart` works while the container runs; once it has ended, `docker start` finds no network for it.
With --detach, a process of docker-run stays to wait for that end; as a service of systemd, do without.
"""


def main() -> None:
    code = _FAILED
    try:
        signals.take_back_pythons()
        while os.open(os.devnull, os.O_RDWR) < 2:
            pass  # a stream that the caller has closed: no pipe of ours shall get its number
        code = _main(sys.argv[1:])
    except signals.Interrupted as error:
        code = 128 + error.signum
    except Exception as error:
        if os.environ.get("CNIHOOK_DEBUG"):
            raise
        _complain(describe(error))
    sys.exit(code)


def _complain(text: str) -> None:
    try:
        os.write(2, f"docker-run: {one_line(text)}\n".encode(errors="replace"))
    except OSError:
        pass


def _main(argv: list[str]) -> int:
    plan = Plan(argv)
    if plan.help:
        os.write(1, HELP.encode())
        return 0
    docker = Docker()
    if plan.is_dockers:
        os.execv(docker.program, ["docker", "run", *argv])
    if os.geteuid() != 0:
        raise Refused("networks need root", "try `sudo docker-run ...`")
    wanted = Wants(None if plan.networks is None else [words.parse_network(name) for name in plan.networks])
    for word, value in plan.said:
        wants.WORDS[word].add(wanted, value)
    settings = Settings.from_environment(os.environ)
    chosen = attach.select(wanted, settings, _complain)
    return _run(docker, plan, chosen, settings)


def _run(docker: Docker, plan: Plan, chosen: list[Served], settings: Settings) -> int:
    client = _Client()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}".lstrip(":")
    signals.raise_on_interrupts()
    keeper = Keeper(docker, f"cnihook-pause-{secrets.token_hex(6)}", plan.pause, settings)
    try:
        pause = keeper.pause()
        attached = _attach(pause, chosen, settings)
        _write_names(pause, attached, plan.own_dns)
        # Before the other options, so that none of them can take a word of these for its value.
        own = [f"--network=container:{pause.id}", "--label", f"{LABEL}={pause.name}"]
        status = client.run(docker.program, ["docker", "run", *own, *plan.run, *plan.rest])
    except Exception as error:
        _complain(describe(error))
        status = _FAILED
    finally:
        signals.ignore_interrupts()
        keeper.release()
        client.restore_signals()
        for complaint in keeper.complaints():
            _complain(complaint)
    client.end_as_it_did()
    return status


class _Client:
    """`docker run` itself, with the signals, umask and environment that this process was given."""

    def __init__(self) -> None:
        self._environment = command.environment()
        self._umask = os.umask(0o022)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._defaults = [
            signum
            for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
            if signal.getsignal(signum) != signal.SIG_IGN
        ]
        self._job: Job | None = None

    def restore_signals(self) -> None:
        for signum in self._defaults:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def run(self, program: str, argv: list[str]) -> int:
        """Returns its exit status when it has ended.  Signals are kept waiting until restore_signals().

        If this process is killed, so is the client; the container goes on, as it does without docker-run.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                libc.set_parent_death_signal(signals.SIGKILL)
                if os.getppid() == parent:
                    self.restore_signals()
                    os.umask(self._umask)
                    os.execve(program, argv, self._environment)
            except OSError as error:
                _complain(f"{program}: {error.strerror}")
            finally:
                os._exit(_FAILED)
        self._job = Job(pid)
        self._job.begin()
        return self._job.wait()

    def end_as_it_did(self) -> None:
        if self._job:
            self._job.end_as_it_did()


def _attach(pause: Pause, chosen: list[Served], settings: Settings) -> list[Attachment]:
    namespace = NetNS.open(f"/proc/{pause.pid}/ns/net")
    try:
        return attach.up(Container(pause.id, namespace, pause.pid), chosen, settings, Log(pause.id))
    finally:
        namespace.close()


# What docker does for the networks that it makes itself


def _write_names(pause: Pause, attached: list[Attachment], own_dns: set[str]) -> None:
    """The container's name in its /etc/hosts, and the networks' name servers in its /etc/resolv.conf.

    Written in place: the files are mounts, which a new file of the same name would not reach.
    """
    names = f"{pause.hostname}.{pause.domain} {pause.hostname}" if pause.domain else pause.hostname
    real = [each.result for each in attached if not each.network.is_loopback]
    try:
        with open(pause.hosts, "a") as file:
            file.writelines(f"{ip.net.address}\t{names}\n" for result in real for ip in result.ips)
        with open(pause.resolv_conf, "r+") as file:
            old = file.read()
            new = _resolv_conf(old, attached, own_dns)
            if new != old:
                file.seek(0)
                file.truncate()
                file.write(new)
    except OSError as error:
        _complain(f"names of the container: {error.filename}: {error.strerror}")


def _resolv_conf(text: str, attached: list[Attachment], own_dns: set[str]) -> str:
    """`text` with what the networks say in the place of what docker took from the host, kind by kind."""
    dns = [each.result.dns for each in attached]
    servers = _once(server for each in dns for server in each.nameservers)
    domains = _once(name for each in dns for name in (*each.search, each.domain) if name)
    options = _once(word for each in dns for word in each.options)
    said = []
    if servers and "dns" not in own_dns:
        said += [f"nameserver {server}" for server in servers]
    if domains and "dns-search" not in own_dns:
        said.append(f"search {' '.join(domains)}")
    if options and not own_dns & {"dns-option", "dns-opt"}:
        said.append(f"options {' '.join(options)}")
    kinds = {line.partition(" ")[0] for line in said}
    kept = [line for line in text.splitlines() if line.partition(" ")[0] not in kinds]
    return "".join(f"{line}\n" for line in (*kept, *said))


def _once(words: Iterable[str]) -> list[str]:
    """Without those that came before, in their order."""
    return list(dict.fromkeys(words))
