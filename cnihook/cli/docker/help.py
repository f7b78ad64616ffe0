# SPDX-License-Identifier: Apache-2.0
"""The text of `docker-run --help`."""

from cnihook.cli.shared import option_help
from cnihook.request.option_table import DOCKER_RUN, of

_BEGIN = """\
usage: docker-run [--network NETWORK]... [OPTION]... IMAGE [COMMAND [ARG]...]

Run `docker run` with CNI networks: those of /etc/cni/net.d (or $NETCONFPATH), on eth0, eth1, ...

  --network NAME[:IFNAME]   a network to attach (default: all), repeatable
  --network name=NAME[,KEY=VALUE]...
                            the same, with options of this network: ip, ip6,
                            mac-address, alias, ifname
  --network host|none|container:NAME
                            a network of docker's: the same as `docker run`

All other options are those of `docker run`.  The networks implement these of docker:

"""
_NEW = """
They also implement options that docker lacks:

"""
_END = """
CNI networks do not support --publish-all, --link and --link-local-ip.

The exit code is that of `docker run`; 125: the container was not started, or it succeeded and something of
its networks is left.

If the daemon has the runtime cni-runc (daemon.json: {"runtimes": {"cni": {"path": "/PATH/TO/cni-runc"}}}),
docker runs the container with it, and all that docker does with containers works, restarts included.
Options become annotations there, so the bounds of /etc/cnihook/config.json apply to them.

Otherwise, with another --runtime, or if $NETCONFPATH or $CNI_PATH is set, a second, small container
"cnihook-pause-..." holds the network until the container has ended.  This requires root.  `docker restart`
works while the container runs.  --restart always does not work, and once the container has ended, `docker
start` finds no network.  With --detach, a process of docker-run waits for the end of the container; do not
use --detach in a systemd service.
"""


def text(width: int = 0) -> str:
    entries = [(entry, entry.docker) for entry in of(DOCKER_RUN) if entry.docker and entry.name != "network"]
    return (
        option_help.filled(_BEGIN, width)
        + option_help.lines((entry for entry, docker in entries if not docker.is_new), width)
        + _NEW
        + option_help.lines((entry for entry, docker in entries if docker.is_new), width)
        + option_help.filled(_END, width)
    )
