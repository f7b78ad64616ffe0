# SPDX-License-Identifier: Apache-2.0
"""The resolv.conf(5) that the configuration of an IPAM plugin names."""

import errno
import os

from cnihook.fast import statefile
from cnihook.types.errors import invalid_config
from cnihook.types.result import DNS


def read(path: str) -> DNS:
    """Read a resolv.conf(5).  Lines of one kind add up; `#` and `;` start comments."""
    dns = DNS()
    try:
        content = statefile.content(path, follow=True)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except statefile.UnusableFileError as problem:
        raise invalid_config(f'ipam: "resolvConf": {path}: {problem}') from None
    except OSError as error:
        raise invalid_config(f'ipam: "resolvConf": {path}: {error.strerror}') from None
    for line in content.decode(errors="replace").splitlines():
        fields = line.split()
        if not fields or fields[0][0] in "#;":
            continue
        if fields[0] == "nameserver":
            dns.nameservers += fields[1:2]
        elif fields[0] == "domain" and len(fields) > 1:
            dns.domain = fields[1]
        elif fields[0] == "search":
            dns.search += fields[1:]
        elif fields[0] == "options":
            dns.options += fields[1:]
    return dns
