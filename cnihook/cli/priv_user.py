# SPDX-License-Identifier: Apache-2.0
"""Whom a command of `priv-net-run` runs as, when that is not root: who called sudo, or another."""

import os
import pwd

from cnihook.cli.priv_options import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class User:
    """A user with groups, and what the environment says of him."""

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
        """For this process, and for good: root's capabilities go with the number.  Raises Refused."""
        try:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise Refused(f"the command cannot run as {self.name}: {error.strerror}") from None


def who_called_sudo(variables: "Mapping[str, str]") -> "User | None":
    """None for root, who may call it as well."""
    uid, gid = variables["SUDO_UID"], variables.get("SUDO_GID", "")
    if not (uid.isdecimal() and (gid.isdecimal() or not gid)):
        raise Refused(
            f"SUDO_UID={uid!r}, SUDO_GID={gid!r}: no numbers; --user NAME or --root says whom to be"
        )
    return _of_number(int(uid), int(gid) if gid else None) if int(uid) else None


def parse(text: str) -> User:
    """NAME or UID; then :GROUP, a name or a number, which stands for all of the user's groups."""
    name, colon, group = text.partition(":")
    gid = _group(group) if colon else None
    if name.isdecimal():
        user = _of_number(int(name), gid)
    else:
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            raise Refused(f"--user {text}: there is no user {name!r}") from None
        user = _known(known, known.pw_gid if gid is None else gid)
    if gid is not None:
        user.groups = [gid]
    return user


def _of_number(uid: int, gid: "int | None") -> User:
    try:
        known = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        if gid is None:
            raise Refused(
                f"user {uid} has no name here, and so no group; --user {uid}:GID gives one"
            ) from None
        return User(uid, gid, str(uid), "/", [gid])
    return _known(known, known.pw_gid if gid is None else gid)


def _known(known: pwd.struct_passwd, gid: int) -> User:
    groups = os.getgrouplist(known.pw_name, gid)
    return User(known.pw_uid, gid, known.pw_name, known.pw_dir, groups)


def _group(text: str) -> int:
    if text.isdecimal():
        return int(text)
    import grp

    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise Refused(f"there is no group {text!r}") from None
