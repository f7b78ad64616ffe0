# SPDX-License-Identifier: Apache-2.0
"""
tuning: kernel settings (sysctl) of the container's namespace, and MAC address, MTU, queue length and
receive modes of its interface.

It follows another plugin in a chain.  The values from before are kept in a file for DEL, in the reference's
form.  The file has two more keys: the network, and the settings, which the reference does not restore.
"""

import errno
import os

from cnihook.fast import fastjson, statefile
from cnihook.fast.address import mac_bytes
from cnihook.fast.errors_text import message
from cnihook.linux import sysctl
from cnihook.sdk import Call, CniError, Field, NetConf, Result, Traits, Undo, invalid_config, read, try_each
from cnihook.types.errors import INTERNAL
from cnihook.types.fields import NEW_ONLY, REATTACH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_FOLDER = "/run/cni/tuning"
_ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
_MAX = (1 << 31) - 1

# The attributes of a link that can be tuned: their names in the file, and in Link and set_link().
_ATTRIBUTES = {
    "mac": "mac",
    "mtu": "mtu",
    "txQLen": "txqlen",
    "promisc": "promiscuous",
    "allmulti": "allmulti",
}

_OWN = (
    Field("mac", str, change=REATTACH, doc="MAC address of the interface"),
    Field("mtu", int, 0, high=_MAX, doc="MTU of the interface; 0: no change"),
    Field("txQLen", int, high=_MAX, doc="length of its queue in packets (default: no change)"),
    Field("promisc", bool, doc="it receives all frames"),
    Field("allmulti", bool, doc="it receives all multicast frames"),
    Field("sysctl", dict, of=str, doc="settings below net, by name; IFNAME is the interface's name"),
)
FIELDS = (
    *_OWN, Field("dataDir", str, _FOLDER, change=NEW_ONLY, doc="the folder of the values from before")
)  # fmt: skip
TRAITS = Traits(
    "chained", takes=("mac",), capabilities=(_OWN[0],), args=_OWN, keeps_sysctls=True, releases_by_owner=True
)


class Conf:
    """Every key; one of `args.cni`, which is for this container, comes before that of the network."""

    def __init__(self, call: Call) -> None:
        args = call.cni_args
        network, container = read(call.conf, FIELDS), read(args, _OWN)
        options = {**network, **{key: value for key, value in container.items() if args.has(key)}}
        self.link: dict[str, Any] = {}  # the new values, by their names in set_link()
        mac = container["mac"] or call.runtime_config.string("mac") or call.arg("MAC") or network["mac"]
        if mac:
            try:
                mac_bytes(mac)
            except ValueError as error:
                raise invalid_config(str(error)) from None
            self.link["mac"] = mac.lower()
        if options["mtu"]:
            self.link["mtu"] = options["mtu"]
        if options["txQLen"] is not None:  # 0 is a length, and false a value
            self.link["txqlen"] = options["txQLen"]
        if options["promisc"]:
            self.link["promiscuous"] = True
        if args.has("allmulti") or call.conf.has("allmulti"):
            self.link["allmulti"] = options["allmulti"]
        first, second = (_Sysctls(part["sysctl"], call.ifname) for part in (network, container))
        self.sysctl_keys = first.keys + second.keys
        self.sysctls = first.values | second.values


class _Sysctls:
    """The settings of one `sysctl` object: `keys` as they are written there, `values` by their names."""

    def __init__(self, conf: NetConf, ifname: str) -> None:
        self.keys: list[str] = []
        self.values: dict[str, str] = {}
        for key in fastjson.repeated(conf.raw):
            if key in conf.raw:
                raise conf.refuse_repeated(key)
        for key in conf.raw:
            if not conf.has(key):
                continue
            # IFNAME is replaced after the dots are, because the dots of an interface name must stay.
            name = sysctl.name_of(key).replace("IFNAME", ifname, 1)
            parts = name.split("/")
            if parts[0] != "net" or len(parts) < 2 or "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
                raise invalid_config(f'invalid net sysctl key: "{key}"', "it must be one of net.*")
            if name in self.values:
                raise invalid_config(f"duplicated sysctl keys are not allowed: {key} is {name} once more")
            self.keys.append(key)
            self.values[name] = conf.string(key)


def _check_allowed(keys: "list[str]") -> None:
    """Raise CniError for a setting that the allowlist of the administrator excludes, if there is one."""
    try:
        with open(_ALLOWLIST) as file:
            allowed = [line.strip() for line in file if line.strip()]
    except FileNotFoundError:
        return
    import re  # takes 4 ms, so only if there is such a file

    for key in keys:
        try:
            matches = any(re.search(pattern, key) for pattern in allowed)
        except re.error as error:
            what = f"{error.pattern!r} is not a regular expression: {error.msg}"
            raise CniError(INTERNAL, f"{_ALLOWLIST}: {what}") from None
        if not matches:
            only = f"Only the following sysctls are allowed: [{' '.join(allowed)}]"
            raise invalid_config(f"Sysctl {key} is not allowed. {only}", f"{_ALLOWLIST} says so")


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    if conf.sysctls:
        _check_allowed(conf.sysctl_keys)
    result = call.required_prev_result()
    if not (conf.link or conf.sysctls):
        return result

    link = call.sandbox.link(call.ifname) if conf.link else None
    own: dict[str, Any] = {
        key: getattr(link, name) for key, name in _ATTRIBUTES.items() if name in conf.link
    }
    with call.sandbox_ns.entered():
        settings = {
            name: {"was": _readable(name), "asked": value, "is": value}
            for name, value in conf.sysctls.items()
        }
    own |= {"network": call.network, "sysctl": settings}
    path = _path(call)
    earlier = _load(path)

    with Undo() as undo:
        undo.push(_put_file_back, path, earlier)
        _store(path, _merged(own, earlier))
        undo.push(_restore, call, own)
        with call.sandbox_ns.entered():
            for name, value in conf.sysctls.items():
                _set(name, value)
                settings[name]["is"] = _readable(name)  # the kernel's form may differ: 1-2 for 1,2
        if link:
            if conf.link.get("mac", link.mac) != link.mac:
                from cnihook.links import neighbours  # few containers request an address

                neighbours.refuse_taken_mac_behind(call.host, link, conf.link["mac"])
            call.sandbox.set_link(link, **conf.link)
        if settings:
            _store(path, _merged(own, earlier))

    for interface in result.interfaces:
        if interface.name == call.ifname and interface.sandbox:  # on the host, another link has that name
            interface.mac = conf.link.get("mac", interface.mac)
            interface.mtu = conf.link.get("mtu", interface.mtu)
    return result


def _readable(name: str) -> "str | None":
    try:
        return sysctl.read(name)
    except OSError:
        return None


def _set(name: str, value: str) -> None:
    try:
        sysctl.write(name, value)
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = "check its spelling; for an interface name with dots, write IFNAME or slashes"
        raise CniError(INTERNAL, f"set sysctl {name} to {value!r}: {error.strerror}", hint) from None


# The file


def _folder(conf: NetConf) -> str:
    return conf.string("dataDir") or _FOLDER


def _file_name(container_id: str, ifname: str) -> str:
    return f"{container_id}_{ifname}.json"


def _path(call: Call) -> str:
    return settings_file(call.conf, call.container_id, call.ifname)


def settings_file(conf: NetConf, container_id: str, ifname: str) -> str:
    """Return the path of the file with an attachment's settings."""
    return f"{_folder(conf)}/{_file_name(container_id, ifname)}"


def _load(path: str) -> "dict[str, Any] | None":
    """Return the file's content; None if the file does not or cannot exist, empty if it is malformed."""
    try:
        content = statefile.read(path)
        if content is None:
            return None
        backup = fastjson.loads(content.decode())
    except ValueError:
        return {}
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise
    return backup if isinstance(backup, dict) else {}


def _merged(own: "dict[str, Any]", earlier: "dict[str, Any] | None") -> "dict[str, Any]":
    """Return the file's new content.  It keeps the values that an earlier call in the chain saved."""
    settings = dict(own["sysctl"])
    for name, setting in _settings(earlier or {}).items():
        settings[name] = settings.get(name, setting) | {"was": setting["was"]}
    merged = {**own, **(earlier or {}), "network": own["network"], "sysctl": settings}
    if not settings:
        del merged["sysctl"]
    return merged


def _settings(backup: "dict[str, Any]") -> "dict[str, dict[str, str | None]]":
    """Return for each setting its value before, the requested one, and what the kernel made of that."""
    settings = backup.get("sysctl")
    if not isinstance(settings, dict):
        return {}
    keys = {"was", "asked", "is"}
    return {name: one for name, one in settings.items() if isinstance(one, dict) and one.keys() >= keys}


def _store(path: str, backup: "dict[str, Any]") -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.new"
    fd = statefile.create(temporary)
    try:
        with open(fd, "w") as file:
            file.write(fastjson.dumps(backup, indent=1))
    except OSError as error:  # it has no file name, because the file was opened by a descriptor
        raise OSError(error.errno, error.strerror, temporary) from None
    os.rename(temporary, path)


def _remove(path: str) -> None:
    for name in (path, f"{path}.new"):
        try:
            os.unlink(name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                raise


def _put_file_back(path: str, earlier: "dict[str, Any] | None") -> None:
    _remove(path)
    if earlier is not None:
        _store(path, earlier)


# DEL


def delete(call: Call) -> None:
    path = _path(call)
    backup = _load(path)
    if backup and not call.request.ending and call.sandbox_if_alive():
        _restore(call, backup, is_last=True)
    _remove(path)


def _restore(call: Call, backup: "dict[str, Any]", *, is_last: bool = False) -> None:
    """Restore what still exists: the link may be gone, and its settings with it.

    `is_last`: the link will be removed, so it is not an error that it cannot be changed.  A container can
    cause that by what it does to its own link.
    """
    sandbox = call.sandbox
    link = sandbox.find_link(call.ifname)

    def restore_link(name: str, value: "Any") -> "Callable[[], None]":
        def restore() -> None:
            try:
                if link:
                    sandbox.set_link(link, **{name: value})
            except Exception:  # the file may hold values of any type
                if not is_last:
                    raise

        return restore

    def restore_settings() -> None:
        with call.sandbox_ns.entered():
            for name, setting in reversed(_settings(backup).items()):
                # A value that differs was set by another program: by the container, or for another network
                # of it, whose DEL came first.
                if setting["was"] is not None and _readable(name) == setting["is"]:
                    _set(name, setting["was"])

    try_each(
        *(restore_link(name, backup[key]) for key, name in _ATTRIBUTES.items() if key in backup),
        restore_settings,
    )


# CHECK, GC


def check(call: Call) -> None:
    conf = Conf(call)
    call.required_prev_result()
    where = f"of container {call.container_id}"
    if conf.sysctls:
        settings = _settings(_load(_path(call)) or {})
        with call.sandbox_ns.entered():
            for name, wanted in conf.sysctls.items():
                _check_setting(name, wanted, settings.get(name, {}), where)
    if not conf.link:
        return
    link = call.sandbox.find_link(call.ifname)
    if not link:
        raise CniError(INTERNAL, f"{call.ifname} {where} does not exist")
    for key, name in _ATTRIBUTES.items():
        now = getattr(link, name)
        if now != conf.link.get(name, now):
            raise CniError(INTERNAL, f"{call.ifname} {where} has {key} {now}, not {conf.link[name]}")


def _check_setting(name: str, wanted: str, made: "dict[str, str | None]", where: str) -> None:
    try:
        now = sysctl.read(name)
    except FileNotFoundError as error:
        raise CniError(INTERNAL, f"sysctl {name} {where}: {message(error)}") from None
    except OSError:
        return  # it can only be written
    if now.split() == wanted.split():  # the kernel puts tabs between numbers
        return
    if not (made and made["asked"] == wanted and made["is"] == now):
        raise CniError(INTERNAL, f"sysctl {name} {where} is {now!r}, not {wanted!r}")


def repair(call: Call) -> None:
    """Run ADD: the file keeps the values from before the first ADD."""
    add(call)


def update(call: Call, before: Call) -> Result:
    """Restore what the new configuration does not set any more, then run ADD, which sets the rest."""
    new, old = Conf(call), Conf(before)
    path = _path(call)
    backup = _load(path) or {}
    gone = old.link.keys() - new.link.keys()
    part = {key: backup.pop(key) for key, name in _ATTRIBUTES.items() if name in gone and key in backup}
    settings = _settings(backup)
    lost = {name: settings.pop(name) for name in settings.keys() & old.sysctls.keys() - new.sysctls.keys()}
    _restore(call, part | {"sysctl": lost})
    if part or lost:
        _store(path, backup | {"sysctl": settings})
    result = add(call)
    for interface in result.interfaces:
        if interface.name == call.ifname and interface.sandbox:
            interface.mtu = part.get("mtu", interface.mtu)
    return result


def gc(call: Call) -> None:
    """Remove the files of attachments to this network, except those of valid attachments.

    The files of the reference do not name a network, so they stay.
    """
    keep = call.valid_attachments()
    if keep is None:
        return
    kept = {_file_name(container_id, ifname) for container_id, ifname in keep}
    folder = _folder(call.conf)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(".json") and name not in kept:
            backup = _load(f"{folder}/{name}")
            if backup and backup.get("network") == call.network:
                _remove(f"{folder}/{name}")
