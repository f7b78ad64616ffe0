# SPDX-License-Identifier: Apache-2.0
"""The user of a command of `priv-net-run`, if not root: the user that called sudo, or another."""

import os
import pwd

from cnihook.cli.privnet.options import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class User:
    """A user with groups, and the environment variables that describe the user."""

    __slots__ = ("gid", "groups", "home", "name", "uid")

    def __init__(self, uid: int, gid: int, name: str, home: str, groups: "list[int]") -> None:
        self.uid = uid
        self.gid = gid
        self.name = name
        self.home = home
        self.groups = groups

    @property
    def variables(self) -> "dict[str, str]":
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def become(self) -> None:
        """Make this process the user's, for good: root's capabilities end with UID 0.  Raises UsageError."""
        try:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise UsageError(f"the command cannot run as {self.name}: {error.strerror}") from None


def who_called_sudo(variables: "Mapping[str, str]") -> "User | None":
    """Return the user that called sudo; None if that is root."""
    uid, gid = variables["SUDO_UID"], variables.get("SUDO_GID", "")
    if not (uid.isdecimal() and (gid.isdecimal() or not gid)):
        raise UsageError(
            f"SUDO_UID={uid!r}, SUDO_GID={gid!r}: not numbers; choose the user by --user NAME or --root"
        )
    return _of_number(int(uid), int(gid) if gid else None) if int(uid) else None


def parse(text: str) -> User:
    """Return the user of NAME or UID.  :GROUP, a name or a number, replaces all groups of the user."""
    name, colon, group = text.partition(":")
    gid = _group(group) if colon else None
    if name.isdecimal():
        user = _of_number(int(name), gid)
    else:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise UsageError(f"--user {text}: there is no user {name!r}") from None
        user = _known(entry, entry.pw_gid if gid is None else gid)
    if gid is not None:
        user.groups = [gid]
    return user


def _of_number(uid: int, gid: "int | None") -> User:
    try:
        entry = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        if gid is None:
            raise UsageError(
                f"user {uid} has no name here, and so no group; --user {uid}:GID gives one"
            ) from None
        return User(uid, gid, str(uid), "/", [gid])
    return _known(entry, entry.pw_gid if gid is None else gid)


def _known(entry: pwd.struct_passwd, gid: int) -> User:
    groups = os.getgrouplist(entry.pw_name, gid)
    return User(entry.pw_uid, gid, entry.pw_name, entry.pw_dir, groups)


def _group(text: str) -> int:
    if text.isdecimal():
        return int(text)
    import grp

    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise UsageError(f"there is no group {text!r}") from None
