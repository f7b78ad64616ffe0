# SPDX-License-Identifier: Apache-2.0
"""
What a plugin declares: its options as FIELDS, its properties as TRAITS.

    FIELDS = (Field("bridge", str, "cni0", check=check_ifname, doc="name of the bridge"), ...)
    TRAITS = Traits("interface", makes=("bridge", "veth"), takes=("mac",))

read() returns the options of one configuration.  The same tables are what `cnihook validate` suggests, what
`cnihook man PLUGIN` and pages/plugin-options.md describe, what `cnihook schema` prints, what the doctor
examines, and what `cnihook apply` can change while a container runs.  A field takes 1.1 us to make, so a
plugin with twenty of them is loaded 0.02 ms later.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.types.config import LenientConf, NetConf, lookup
from cnihook.types.errors import CniError, invalid_config
from cnihook.types.names import check_ifname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Fields = Sequence["Field"]

MOST = (1 << 63) - 1
MAX_VLAN = 4094
DEFAULT_VLAN = 1  # the VLAN that a bridge gives every new port
POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"  # the capability of Kubernetes' runtimes
_EMPTY = {bool: False, str: ""}  # the defaults of a Field that names none

# What another value of a key takes, if a container runs that was attached with the old one.
IN_PLACE = "in-place"  # update() of the plugin
REATTACH = "re-attach"  # a detach and an attach
NEW_ONLY = "new-only"  # nothing: only new containers use it


class Field:
    """One key of a configuration.

    `type` is bool, int, str, Address, IPNet, dict or list; `of` is the type of the items of a list, or of
    the values of a dict whose keys are names.  `fields` are the keys of an object, or of a list's objects.
    """

    __slots__ = (
        "change", "check", "choices", "default", "doc", "fields", "folded", "high", "like", "low", "name",
        "needs", "of", "program", "required", "type",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        type: "type",
        default: "Any" = None,
        *,
        low: int = 0,
        high: int = MOST,
        choices: "Sequence[str]" = (),
        check: "Callable[[Any], object] | None" = None,
        of: "type | None" = None,
        fields: "Fields" = (),
        required: bool = False,
        like: str = "",
        needs: str = "",
        program: str = "",
        change: str = "",
        doc: str = "",
    ) -> None:
        self.name = name
        self.folded = name.lower()
        self.type = type
        # For numbers, objects and addresses, None: the key is absent.
        self.default: Any = _EMPTY.get(type) if default is None else default
        self.low = low
        self.high = high
        self.choices = choices
        # It replaces the test of bounds and choices.  It raises ValueError of the problem and maybe a hint,
        # to which the key is added, or CniError, which is reported as it is.
        self.check = check
        self.of = of
        self.fields = fields
        self.required = required  # the plugin itself reports that it is missing
        self.like = like  # another key of the object, an address of the same IP version
        self.needs = needs  # a kernel feature that this key requires
        self.program = program  # a program that this key requires
        self.change = change  # IN_PLACE, REATTACH, NEW_ONLY; empty: that of the TRAITS
        self.doc = doc

    def __repr__(self) -> str:
        return f"Field({self.name!r}, {self.type.__name__})"

    def read(self, conf: NetConf) -> "Any":
        """Return the value in `conf`, or the default.  An object is a NetConf.

        Raises CniError that names the key; of a DEL (LenientConf), a wrong value counts as absent.
        """
        try:
            return self._read(conf)
        except CniError:
            if not conf.is_lenient:
                raise
            return [] if self.type is list else self.default

    def _read(self, conf: NetConf) -> "Any":
        name, kind = self.name, self.type
        if kind is bool:
            return conf.boolean(name, default=self.default)
        if kind is dict:
            return conf.object(name)
        if kind is Address:
            return conf.address(name)
        if kind is IPNet:
            return conf.network(name)
        if kind is list:
            return (
                conf.strings(name) if self.of in (str, Address, IPNet)
                else conf.objects(name) if self.of is dict
                else conf.list(name)
            )  # fmt: skip
        if kind is str:
            text = conf.string(name) or self.default
            if text and self.choices and not self.check and text not in self.choices:
                raise conf.refuse(name, f"must be one of {', '.join(self.choices)}, not {text!r}")
            return self._checked(conf, text) if text else text
        if self.default is None:
            if not conf.has(name):
                return None
            conf = NetConf(conf.raw, conf.where)  # if lenient, it would return a number for a wrong value
        low, high = (-MOST - 1, MOST) if self.check else (self.low, self.high)
        return self._checked(conf, conf.integer(name, default=self.default or 0, low=low, high=high))

    def _checked(self, conf: NetConf, value: "Any") -> "Any":
        if self.check:
            try:
                self.check(value)
            except ValueError as error:
                problem, *hint = error.args
                raise conf.refuse(self.name, f"is wrong: {problem}", *hint) from None
        return value


def read(conf: NetConf, fields: "Fields") -> "dict[str, Any]":
    """Return the value of each field in `conf`, by name; see Field.read().

    The keys are folded once for all fields: 17 look-ups of absent keys would take 15 us.
    """
    present = {key.lower() for key in conf.raw}
    values: dict[str, Any] = {}
    for field in fields:
        if field.folded in present or field.required or field.type is dict:
            values[field.name] = field.read(conf)
        else:
            values[field.name] = [] if field.type is list else field.default
    return values


def check_vlan(number: int) -> None:
    """Raise CniError for a number that no VLAN has; 0 stands for none."""
    if not 0 <= number <= MAX_VLAN:
        raise invalid_config(f"invalid VLAN ID {number} (must be between 0 and {MAX_VLAN})")


def check_link_name(name: str) -> None:
    """Raise ValueError for a text that cannot be the name of a link."""
    try:
        check_ifname(name)
    except CniError as error:
        raise ValueError(error.msg, error.details) from None


_OF_POD = Field(
    POD_ANNOTATIONS, dict, of=str, doc="the annotations of a Kubernetes pod, such as `cnihook.ip`"
)


class Traits:
    """The properties of a plugin that other parts act upon.  The defaults are those of an unknown plugin."""

    __slots__ = (
        "args", "capabilities", "change", "from_server", "gateway", "has_leases", "keeps_sysctls", "kind",
        "link", "makes", "moves_routes", "needs", "on_parent", "opens_firewall", "releases_by_owner",
        "takes",
    )  # fmt: skip

    def __init__(
        self,
        kind: str = "",
        *,
        makes: "Sequence[str]" = (),
        needs: "Sequence[str]" = (),
        takes: "Sequence[str]" = (),
        capabilities: "Fields" = (),
        args: "Fields" = (),
        link: "Field | None" = None,
        on_parent: bool = False,
        gateway: "bool | tuple[str, ...]" = False,
        opens_firewall: bool = False,
        from_server: bool = False,
        has_leases: bool = False,
        keeps_sysctls: bool = False,
        moves_routes: bool = False,
        releases_by_owner: bool = False,
        change: str = "",
    ) -> None:
        self.kind = kind  # interface, loopback, ipam (its FIELDS are keys of `ipam`) or chained
        self.makes = makes  # the kinds of links that it makes
        self.needs = needs  # other kernel features that it always requires
        # What it takes without a capability: "ips" and "mac" in CNI_ARGS, "routes" and "hostname" in `ipam`.
        self.takes = takes
        # keys of runtimeConfig
        self.capabilities = (*capabilities, _OF_POD) if kind == "interface" else capabilities
        self.args = args  # keys of args.cni
        self.link = link  # the key that names the host's link to which it attaches containers
        self.on_parent = on_parent  # the containers are on the network of that link
        # The host is the containers' gateway: always, or if one of these keys is true.
        self.gateway = gateway
        self.opens_firewall = opens_firewall  # it lets the network through the host's firewall
        # Address and routes are those of a server, reached through the container's link.
        self.from_server = from_server
        self.has_leases = has_leases  # its Conf has `sets` of ranges, and `folder` with a file per lease
        self.keeps_sysctls = keeps_sysctls  # it has settings_file(), the path of a file with its sysctls
        self.moves_routes = moves_routes  # it moves the routes of the interface into another table
        # Its DEL finds what an attachment has on the host by the owner, without the configuration.
        self.releases_by_owner = releases_by_owner
        # Of the keys that name none.  Empty: IN_PLACE if it is chained and has update(), else REATTACH.
        self.change = change

    def host_link(self, raw: "dict[str, Any]") -> str:
        """Return the host's link that a configuration names, or the default one; empty if there is none."""
        return str(self.link.read(LenientConf(raw))) if self.link else ""

    def is_gateway(self, raw: "dict[str, Any]") -> bool:
        """Return True if the host is the gateway of the containers, by the configuration."""
        if isinstance(self.gateway, bool):
            return self.gateway
        return any(lookup(raw, key) is True for key in self.gateway)
