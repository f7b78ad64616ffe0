# SPDX-License-Identifier: Apache-2.0
"""
The table of all options that the hook, `attach`, `inject`, priv-net-run and docker-run share.

Their --help, the completion, the manual pages, pages/options.md and a table of pages/kubernetes.md are made
from it.  A new option, which is an annotation, too, takes an entry here, and its reader in request.options.
No program needs this table to read a request, except for docker-run, which translates docker's names, and a
plugin that gets the annotations of a Kubernetes pod.
"""

from cnihook.request.options import OPTIONS, annotation_of

HOOK = "hook"
ATTACH = "attach"
INJECT = "inject"
PRIV_NET_RUN = "priv-net-run"
DOCKER_RUN = "docker-run"

NETWORKS = "networks"
REQUESTS = "requests"
BOUNDS = "bounds on the annotations cnihook.*; see `cnihook man security`"
COMMAND = "the command"
END = "the end"


class Docker:
    """Docker's form of an option.

    `alias`: docker's old name.  `key`: its key within --network, for an option of one network, and `term`,
    docker's term for it in an error.  `is_new`: `docker run` does not have it.
    """

    __slots__ = ("alias", "is_new", "key", "term")

    def __init__(self, *, alias: str = "", key: str = "", term: str = "", is_new: bool = False) -> None:
        self.alias = alias
        self.key = key
        self.term = term
        self.is_new = is_new


class Entry:
    """One option.

    `metavar` is empty for a switch, and [=METAVAR] if the value may be left out.  `examples`: values of a
    request, in Markdown.  `programs`: those that have the option; docker-run has it in the form of `docker`.
    `in_kubernetes`: what a pod has instead of the annotation; empty if a pod has the annotation itself.
    """

    __slots__ = (
        "docker",
        "examples",
        "group",
        "in_kubernetes",
        "metavar",
        "name",
        "programs",
        "purpose",
        "short",
        "takes_many",
    )

    def __init__(
        self,
        name: str,
        metavar: str,
        purpose: str,
        *,
        group: str = REQUESTS,
        programs: "tuple[str, ...]" = (HOOK, ATTACH, INJECT, PRIV_NET_RUN),
        short: str = "",
        takes_many: bool = False,
        examples: str = "",
        docker: "Docker | None" = None,
        in_kubernetes: str = "",
    ) -> None:
        self.name = name
        self.metavar = metavar
        self.purpose = purpose
        self.group = group
        self.programs = (*programs, DOCKER_RUN) if docker else programs
        self.short = short
        self.takes_many = takes_many
        self.examples = examples
        self.docker = docker
        self.in_kubernetes = in_kubernetes
        if request := OPTIONS.get(name):
            self.short = request.short
            self.takes_many = bool(request.most)

    @property
    def annotation(self) -> str:
        """The annotation with the same effect; empty if the option is not a request."""
        return annotation_of(self.name) if self.name in OPTIONS else ""

    @property
    def needs_value(self) -> bool:
        return bool(self.metavar) and self.metavar[0] != "["

    @property
    def value(self) -> str:
        """The form of the option's value, with the space before it; empty for a switch."""
        return f" {self.metavar}" if self.needs_value else self.metavar

    @property
    def flags(self) -> str:
        return f"--{self.name}, {self.short}" if self.short else f"--{self.name}"

    @property
    def help(self) -> str:
        return f"{self.purpose}, repeatable" if self.takes_many else self.purpose


TABLE = (
    Entry(
        "network",
        "NAME[:IFNAME]",
        "a network to attach (default: all, as eth0, eth1, ...)",
        group=NETWORKS,
        examples="`front`, `back:eth1`, `front:ip=10.1.0.7,mac=02:00:00:00:00:07,alias=web`",
        docker=Docker(alias="net"),
        in_kubernetes="the network of the runtime's folder; Multus attaches further ones",
    ),
    Entry(
        "conf-dir",
        "DIR",
        "network configurations (default: $NETCONFPATH, else /etc/cni/net.d)",
        group=NETWORKS,
    ),
    Entry(
        "cni-path",
        "DIR[:DIR]...",
        "folders whose plugins come before the built-in ones (default: $CNI_PATH)",
        group=NETWORKS,
    ),
    Entry(
        "name",
        "NAME",
        "the name by which `cnihook ps`, graph and logs show the command (default: priv- and random digits)",
        group=NETWORKS,
        programs=(PRIV_NET_RUN,),
    ),
    Entry(
        "netns",
        "NAME|PATH",
        "a new NAME: the namespace and its networks are kept after the command's end, until "
        "`priv-net-run --netns NAME --delete` or `cnihook detach NAME`; an existing one (kept so, a "
        "container's, of `ip netns`): the command joins it and its networks; those of --network are added "
        "until the command ends",
        group=NETWORKS,
        programs=(PRIV_NET_RUN,),
    ),
    Entry(
        "delete",
        "",
        "detach the namespace of --netns NAME from its networks, and remove it",
        group=NETWORKS,
        programs=(PRIV_NET_RUN,),
    ),
    Entry(
        "publish",
        "PORTS",
        "[[IP:]PORT:]PORT[/PROTOCOL]: publish a port on a port of the host",
        examples="`8080:80`, `127.0.0.1:8443:443`, `53:53/udp`, `8000-8010:80` (one of them), `80` (any "
        "free port)",
        docker=Docker(),
        in_kubernetes="`hostPort` of a container's port",
    ),
    Entry(
        "ip",
        "ADDRESS",
        "an IPv4 address",
        examples="`10.1.0.7`",
        docker=Docker(key="ip", term="IPv4 address"),
    ),
    Entry(
        "ip6",
        "ADDRESS",
        "an IPv6 address",
        examples="`fd00:1::7`",
        docker=Docker(key="ip6", term="IPv6 address"),
    ),
    Entry(
        "mac-address",
        "ADDRESS",
        "a MAC address",
        examples="`02:00:00:00:00:07`",
        docker=Docker(key="mac", term="MAC address"),
    ),
    Entry(
        "sticky",
        "NAME",
        "keep addresses and MAC addresses for the next container with this NAME, also over a reboot",
        examples="`web`",
        docker=Docker(is_new=True),
        in_kubernetes="an address of its choice by `cnihook.ip`",
    ),
    Entry(
        "bandwidth",
        "LIMITS",
        "in=RATE,out=RATE: bits per second, such as in=10M,out=2M",
        examples="`in=10M,out=2M`",
        docker=Docker(is_new=True),
        in_kubernetes="`kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`",
    ),
    Entry(
        "emulate",
        "EFFECTS",
        "delay=, jitter=, loss=, duplicate=, corrupt=, reorder=, rate=: a bad network for what is sent, "
        "such as delay=80ms,rate=2M; with in- before a key, for what is received",
        examples="`delay=80ms,jitter=5ms,loss=1%`, `delay=40ms,in-delay=40ms,in-rate=2M`",
        docker=Docker(is_new=True),
        in_kubernetes="no field for it",
    ),
    Entry(
        "quota",
        "LIMITS",
        "out=BYTES,in=BYTES,total=BYTES: what may be sent, received, and both, until nothing passes",
        examples="`out=10G`, `in=50G,total=55G`",
        docker=Docker(is_new=True),
        in_kubernetes="no field for it",
    ),
    Entry(
        "route",
        "NET[=GATEWAY]",
        "a further route",
        examples="`10.0.0.0/8=10.1.0.9`; a requested default route is the only one of its IP version",
        docker=Docker(is_new=True),
    ),
    Entry(
        "no-default-route",
        "",
        "no default route by any network",
        examples="`true`",
        docker=Docker(is_new=True),
    ),
    Entry(
        "dns",
        "ADDRESS",
        "a DNS server",
        examples="`192.0.2.53`",
        docker=Docker(),
        in_kubernetes="`nameservers` of `dnsConfig`",
    ),
    Entry(
        "dns-search",
        "DOMAIN",
        "a domain to search",
        examples="`example.org`",
        docker=Docker(),
        in_kubernetes="`searches` of `dnsConfig`",
    ),
    Entry(
        "dns-option",
        "OPTION",
        "an option of resolv.conf",
        examples="`ndots:2`",
        docker=Docker(alias="dns-opt"),
        in_kubernetes="`options` of `dnsConfig`",
    ),
    Entry(
        "mdns",
        "[=INTERFACES]",
        "multicast DNS with the LAN: the container finds printers and the like there, and is found; by "
        "these interfaces of the host (default: those with a default route)",
        examples="`true`, `eth0,wlan0`",
        docker=Docker(is_new=True),
        in_kubernetes="`hostNetwork`",
    ),
    Entry("hostname", "NAME", "a host name", examples="`web`", in_kubernetes="`hostname`"),
    Entry(
        "add-host",
        "NAME:ADDRESS",
        "an entry of /etc/hosts (host-gateway: the host's address)",
        examples="`db:10.1.0.9`, `up:host-gateway`",
        docker=Docker(),
        in_kubernetes="`hostAliases`",
    ),
    Entry(
        "network-alias",
        "NAME",
        "another name on the networks",
        examples="`db`",
        docker=Docker(alias="net-alias", key="alias", term="alias"),
        in_kubernetes="a Service",
    ),
    Entry(
        "egress",
        "LIST",
        "where it may open connections to: `none`, `all`, or peers with ports; see `cnihook man policies`",
        examples="`dns,10.0.0.0/8:5432/tcp`, `label:app=db`, `all,!10.0.0.0/8`, `none`",
        docker=Docker(is_new=True),
    ),
    Entry(
        "ingress",
        "LIST",
        "from where it accepts connections, in the same form",
        examples="`outside:80/tcp`, `container:proxy`",
        docker=Docker(is_new=True),
    ),
    Entry(
        "policy",
        "NAME",
        "a policy of the host that it also obeys",
        examples="`sandbox`",
        docker=Docker(is_new=True),
    ),
    Entry(
        "weak-policy",
        "",
        "enforce its lists on macvlan and the like even if it has CAP_NET_ADMIN and can remove them",
        examples="`true`",
        docker=Docker(is_new=True),
    ),
    Entry(
        "label",
        "KEY=VALUE",
        "a label that policies select",
        examples="`app=db`",
    ),
    Entry(
        "allow",
        "NAME[,NAME]...",
        "the annotations that may be used, such as networks,publish (default: all)",
        group=BOUNDS,
        programs=(HOOK, INJECT),
    ),
    Entry(
        "ports",
        "PORT[-PORT][,...]",
        "the ports of the host that annotations may publish (default: all)",
        group=BOUNDS,
        programs=(HOOK, INJECT),
    ),
    Entry(
        "trust-images",
        "",
        "also obey annotations that podman before 4.6 may have copied from an image",
        group=BOUNDS,
        programs=(HOOK,),
    ),
    Entry(
        "wait",
        "",
        "at the end, return when the links are deleted, too, which takes the kernel 20 to 60 ms "
        "(default: a process in the background deletes them)",
        group=END,
        programs=(HOOK, PRIV_NET_RUN),
    ),
    Entry(
        "user",
        "NAME|UID[:GROUP]",
        "the command's user (default: the user that called sudo, else the caller)",
        group=COMMAND,
        programs=(PRIV_NET_RUN,),
    ),
    Entry("root", "", "run the command as root, also under sudo", group=COMMAND, programs=(PRIV_NET_RUN,)),
    Entry(
        "env",
        "KEY=VALUE",
        "a variable of the command's environment",
        group=COMMAND,
        programs=(PRIV_NET_RUN,),
        takes_many=True,
    ),
    Entry(
        "timeout",
        "SECONDS",
        "the command's time limit; then SIGTERM, 5 s later SIGKILL, and exit status 124",
        group=COMMAND,
        programs=(PRIV_NET_RUN,),
    ),
    Entry(
        "pcap",
        "FILE",
        "write every packet from the first one on, as pcapng, for `tcpdump -r`",
        group=COMMAND,
        programs=(PRIV_NET_RUN,),
    ),
    Entry(
        "json",
        "FD|FILE",
        "write a line of JSON when the networks are up: id, netns, pid, networks, each with its addresses "
        "and CNI result; and a line with the status at the end",
        group=COMMAND,
        programs=(PRIV_NET_RUN,),
    ),
)


def of(program: str) -> "list[Entry]":
    return [entry for entry in TABLE if program in entry.programs]


def entry(name: str) -> Entry:
    return next(entry for entry in TABLE if entry.name == name)
