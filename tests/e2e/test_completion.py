# SPDX-License-Identifier: Apache-2.0
"""cnihook completion: what Tab does in bash, zsh and fish."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cnihook.cli.main import COMMANDS, HOOK
from cnihook.cli.shared import candidates
from tests.support.host.host import Host
from tests.support.host.terminal import Terminal
from tests.support.runtimes.oci import CNIHOOK, MYNET, bridge, configure
from tests.support.skip import need

# What is typed before Tab, and the line after it.
DONE = {
    "cnihook va": "cnihook validate",
    "cnihook gc --dr": "cnihook gc --dry-run",
    "cnihook attach c1 --network my": "cnihook attach c1 --network mynet",
    "cnihook attach c1 --network=oth": "cnihook attach c1 --network=other",
    "cnihook detach bo": "cnihook detach box",
    "cnihook stats bo": "cnihook stats box",
    "cnihook check bo": "cnihook check box",
    "cnihook check oth": "cnihook check other",
    "cnihook gc mynet --keep bo": "cnihook gc mynet --keep box",
    "cnihook hooks.d ins": "cnihook hooks.d install",
    "cnihook completion fi": "cnihook completion fish",
    "cnihook man troub": "cnihook man troubleshooting",
    "cnihook schema host-l": "cnihook schema host-local",
    "cnihook add mynet bo": "cnihook add mynet box",
    "cnihook port bo": "cnihook port box",
    "cnihook ps --sort addr": "cnihook ps --sort addresses",
    "cnihook graph --output /etc/cni/net.d/10-n": "cnihook graph --output /etc/cni/net.d/10-net.conflist",
    "priv-net-run --network my": "priv-net-run --network mynet",
    "docker-run --network=my": "docker-run --network=mynet",
    "docker-run --deta": "docker-run --detach",
    "docker-run -it --name web -e A=B --network my": "docker-run -it --name web -e A=B --network mynet",
}
SHELLS = {"bash": "bash --norc --noprofile -i", "zsh": "zsh -f -i"}


@contextmanager
def attached(host: Host) -> Iterator[None]:
    """Attach a namespace that the user called box."""
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    host.container("box")
    host.run(CNIHOOK, "add", "mynet", "box")
    yield
    host.run(CNIHOOK, "detach", "box")


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_the_line(host: Host, shell: str) -> None:
    """The keys are typed at a real prompt; the shell prints the line that it would have run."""
    need(shell)
    with attached(host), Terminal(host, SHELLS[shell]) as terminal:
        if shell == "zsh":
            terminal.type("bindkey -e; autoload -Uz compinit; compinit -u -D\n")
        terminal.type(f'eval "$({CNIHOOK} completion {shell})"; echo set-up\n')
        terminal.wait_for(r"\nset-up")
        for line, after in DONE.items():
            # Ctrl-A and Ctrl-E: the begin and the end of the line.
            terminal.type(f"{line}\t\x01echo 'is: \x05'\n")
            assert terminal.wait_for(r"\nis: ([^\r\n]*)")[1].rstrip() == after


def test_fish_completes_the_line(host: Host) -> None:
    need("fish")
    script = f"{CNIHOOK} completion fish | source\n"
    script += "".join(f"complete -C '{line}'; echo ==\n" for line in DONE)

    with attached(host):
        answers = host.run("fish", "-N", input=script).stdout.split("==\n")
    assert len(answers) == len(DONE) + 1
    for (line, after), answer in zip(DONE.items(), answers, strict=False):
        assert answer.split("\n")[0].partition("\t")[0] == after.rpartition(" ")[2], line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_parses_the_script(shell: str) -> None:
    need(shell)
    script = subprocess.run(
        [CNIHOOK, "completion", shell], capture_output=True, text=True, check=True
    ).stdout

    result = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


FREE = {
    *("alias", "port", "publish_add", "publish_rm", "seconds", "since", "tail"),
    *("alias_add", "alias_rm", "host_add", "host_rm", "mtu", "route_add", "route_rm", "sysctl"),
    *("egress", "emulate", "ingress", "label", "quota"),
    *("allow", "bandwidth", "capability_args", "check", "cni_args", "command", "container_id", "dns"),
    *(
        "add_host",
        "dns_option",
        "dns_search",
        "env",
        "hostname",
        "ifname",
        "interval",
        "ip",
        "ip6",
    ),
    *(
        "linger",
        "mac_address",
        "name",
        "network_alias",
        "node",
        "ports",
        "publish",
        "route",
        "runtime",
        "timeout",
        "user",
    ),
}


@pytest.mark.parametrize("command", [*(one for one in COMMANDS if one not in HOOK), *candidates.PROGRAMS])
def test_values_of_every_argument_are_completed(command: str) -> None:
    """A new argument needs an entry in candidates.VALUES, or in FREE if nothing can be offered."""
    syntax = candidates.syntax_of(command)

    for argument in (*syntax.options.values(), *syntax.operands):
        names = {"", "complete", *candidates.VALUES, *FREE}
        assert argument.choices or {argument.name, f"{command} {argument.name}"} & names, argument.name
