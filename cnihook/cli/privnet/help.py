# SPDX-License-Identifier: Apache-2.0
"""The text of `priv-net-run --help`."""

from cnihook.cli.shared import option_help
from cnihook.request.option_table import PRIV_NET_RUN

_BEGIN = """\
usage: priv-net-run [OPTION]... [--] COMMAND...
       priv-net-run --netns NAME --delete

Run a command in a private network namespace, attached to CNI networks.  The command has the terminal, the
signals, the files and the environment of its caller.  When it has ended, its network is cut off, and a
process in the background deletes what is left of it; --wait waits for that.

"""
_END = """\
  --help, --version

If no network is configured, a built-in one is used.  Without root, pasta or slirp4netns is the uplink.

In a systemd unit, sockets of socket activation are passed to the command.  Type=notify and WatchdogSec=
need NotifyAccess=all, because the command is not the unit's main process.

The command does not see the sockets of nscd, systemd-resolved and Avahi, which would answer for the host's
network.  If the host replaces its resolv.conf or hosts, the command sees the host's file for some ms, then
its own again.

The exit status is that of the command, except:

  124         its time was over
  125         it got no network; or it succeeded, and its capture or the end
              of its networks failed
  126         it cannot be executed
  127         there is no such command
  128+n       signal n ended it

examples:
  priv-net-run ip addr
  priv-net-run --network mynet --network storage:data0 sh
"""


def text(width: int = 0) -> str:
    options = option_help.sections(PRIV_NET_RUN, width)
    return option_help.filled(_BEGIN, width) + options + option_help.filled(_END, width)
