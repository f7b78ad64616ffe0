# SPDX-License-Identifier: Apache-2.0
"""The arguments of `priv-net-run`.  Not by argparse, which costs 8 ms and would read COMMAND's options."""

HELP = """\
usage: priv-net-run [OPTION]... [--] COMMAND...
       priv-net-run --netns NAME --delete

Run a command in a private network namespace, attached to CNI networks.  The command has the terminal, the
signals, the files and the environment of its caller.  When it has ended, nothing of its network is left.

networks:
  --network NAME[:IFNAME]     a network to attach (default: all, as eth0, eth1, ...), repeatable
  --conf-dir DIR              network configurations (default: $NETCONFPATH, else /etc/cni/net.d)
  --cni-path DIR[:DIR]...     folders whose plugins come before the built-in ones (default: $CNI_PATH)
  --netns NAME|PATH           a new NAME: the namespace and its networks are kept after the command's end,
                              until `priv-net-run --netns NAME --delete` or `cnihook detach NAME`;
                              an existing one (kept so, a container's, of `ip netns`): the command joins
                              it and its networks; those of --network are added until the command ends

requests:
  --ip ADDRESS                an IPv4 address
  --ip6 ADDRESS               an IPv6 address
  --mac-address ADDRESS       a MAC address
  --publish, -p PORTS         [[IP:]PORT:]PORT[/PROTOCOL]: a port of the host that leads here, repeatable
  --bandwidth LIMITS          in=RATE,out=RATE: bits a second, such as in=10M,out=2M
  --route NET[=GATEWAY]       a further route, repeatable
  --no-default-route          no default route by any network
  --dns ADDRESS               a DNS server, repeatable
  --dns-search DOMAIN         a domain to search, repeatable
  --dns-option OPTION         an option of resolv.conf, repeatable
  --hostname NAME             a host name
  --add-host NAME:ADDRESS     an entry of /etc/hosts (host-gateway: the host's address), repeatable
  --network-alias NAME        another name on the networks, repeatable

the command:
  --user NAME|UID[:GROUP]     its user (default: the user that called sudo, else the caller)
  --root                      run it as root, also under sudo
  --env KEY=VALUE             a variable of its environment, repeatable
  --timeout SECONDS           its time limit; then SIGTERM, 5 s later SIGKILL, and exit status 124
  --pcap FILE                 write every packet from the first one on, as pcapng, for `tcpdump -r`
  --json FD|FILE              write a line of JSON when the networks are up: id, netns, pid, networks, each
                              with its addresses and CNI result; and a line with the status at the end
  --help, --version

If no network is configured, a built-in one is used.  Without root, pasta or slirp4netns is the uplink.

In a systemd unit, sockets of socket activation are passed to the command.  Type=notify and WatchdogSec=
need NotifyAccess=all, because the command is not the unit's main process.

The command does not see the sockets of nscd, systemd-resolved and Avahi, which would answer for the host's
network.  If the host replaces its resolv.conf or hosts, the command sees the host's file for some ms, then
its own again.

The exit status is that of the command, except:

  124    its time was over
  125    it got no network
  126    it cannot be executed
  127    there is no such command
  128+n  signal n ended it

examples:
  priv-net-run ip addr
  priv-net-run --network mynet --network storage:data0 sh
"""

# The options of request.options, which is imported while the command's process makes its namespace.
_WANTS = (
    "--network", "--ip", "--ip6", "--mac-address", "--publish", "-p", "--bandwidth", "--dns", "--dns-search",
    "--dns-option", "--hostname", "--add-host", "--network-alias", "--route",
)  # fmt: skip
_WANTED_SWITCHES = ("--no-default-route",)
_OWN = ("--conf-dir", "--cni-path", "--netns", "--user", "--env", "--timeout", "--pcap", "--json")
_SEE = "see `priv-net-run --help`"


class UsageError(Exception):
    """A request that cannot be met."""


class Options:
    """The options of the command line.  All arguments from the first operand on are the command."""

    def __init__(self, argv: "list[str]") -> None:
        self.answer = ""  # to --help or --version
        self.requested: list[tuple[str, str]] = []  # option and value, understood later
        self.conf_dir = ""
        self.plugin_dirs: list[str] | None = None
        self.netns = ""
        self.delete = False
        self.user = ""
        self.root = False
        self.variables: dict[str, str] = {}
        self.timeout = 0.0  # none
        self.pcap = ""
        self.json = ""
        self.command = list(argv)
        while self.command and self.command[0].startswith("-"):
            word = self.command.pop(0)
            if word == "--":
                break
            self._read(word)
            if self.answer:
                return
        if self.root and self.user:
            raise UsageError("--root and --user cannot be combined: --root means --user root")
        if self.delete:
            if self.command or not self.netns:
                raise UsageError(f"--delete needs --netns NAME, and takes no command; {_SEE}")
        elif not self.command:
            raise UsageError(f"no command given; {_SEE}")

    def _read(self, word: str) -> None:
        option, equals, value = word.partition("=")
        if option in ("--help", "-h"):
            self.answer = HELP
        elif option == "--version":
            from cnihook import __version__

            self.answer = f"priv-net-run {__version__}\n"
        elif option in _WANTED_SWITCHES:
            self.requested.append((option, value))
        elif option == "--root" and not equals:
            self.root = True
        elif option == "--delete" and not equals:
            self.delete = True
        elif option in _WANTS or option in _OWN:
            if not equals:
                if not self.command:
                    raise UsageError(f"{option} needs a value; {_SEE}")
                value = self.command.pop(0)
            if option in _WANTS:
                self.requested.append((option, value))
            else:
                self._set(option, value)
        else:
            raise UsageError(f"unknown option {option!r}; {_SEE}")

    def _set(self, option: str, value: str) -> None:
        if option == "--cni-path":
            self.plugin_dirs = value.split(":")
        elif option == "--env":
            name, equals, content = value.partition("=")
            if not (name and equals):
                raise UsageError(f"--env {value!r}: it takes KEY=VALUE")
            self.variables[name] = content
        elif option == "--timeout":
            self.timeout = _seconds(value)
        elif not value:
            raise UsageError(f"{option}: its value is empty; {_SEE}")
        elif option == "--conf-dir":
            self.conf_dir = value
        elif option == "--netns":
            self.netns = value
        elif option == "--user":
            self.user = value
        elif option == "--pcap":
            self.pcap = value
        else:
            self.json = value


def _seconds(text: str) -> float:
    try:
        value = float(text)
        if 0 < value < 1e9:
            return value
    except ValueError:
        pass
    raise UsageError(f"--timeout {text!r}: it takes a number of seconds")
