# SPDX-License-Identifier: Apache-2.0
"""Kernel settings that improve a network, and without which traffic passes as well."""

from cnihook.linux import sysctl

_reported = False


def prefer(name: str, value: "str | int") -> None:
    """Set it if it exists and can be changed.

    A failure, as on a read-only /proc/sys, is reported once per process, and the operation continues.
    """
    global _reported
    try:
        sysctl.write_if_present(name, value)
    except OSError as error:
        if not _reported:
            from cnihook.log import notice  # rarely needed

            notice(f"{error.filename}: {error.strerror}; this and other optional settings are skipped")
        _reported = True
