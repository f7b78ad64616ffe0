# SPDX-License-Identifier: Apache-2.0
"""
The two inputs of an attachment whose change was interrupted: see update.py.

The record has the input that was in force, and under the key `pending` the one that the plugins may have
already.  A DEL removes what either has set up.
"""

import binascii

from cnihook.fast.undo import try_each
from cnihook.protocol import invoke
from cnihook.protocol.call import Invocation
from cnihook.runtime import attachment, chain, networks
from cnihook.runtime.networks import Network
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.types import Value, versions
from cnihook.types.config import LenientConf, NetConf
from cnihook.types.errors import CniError
from cnihook.types.fields import IN_PLACE
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# Keys of the object `cnihook` in a record that a change may replace: the container's names and name servers,
# what it requests of policies, and which keys of the configuration are its own.
_OWN = ("names", "policy", "requested")
_ROUTES = "ipam.routes"  # an interface plugin with update() changes those, too


class Input(Value):
    """The values from which an attachment is made.

    `config` and `capability_args`: the input of its plugins.  `own`: what cnihook itself sets up for the
    container, by its key in the record.
    """

    __slots__ = ("capability_args", "config", "own")

    def __init__(
        self, config: bytes, capability_args: "dict[str, Any]", own: "dict[str, Any] | None" = None
    ) -> None:
        self.config = config
        self.capability_args = capability_args
        self.own = own or {}

    @classmethod
    def of(cls, record: Record) -> "Input":
        return cls(record.config, record.capability_args, _own(record.extra))

    @classmethod
    def from_json(cls, raw: object, record: Record) -> "Input":
        """Return the input under a key of a record.  The record's own replaces a malformed value."""
        conf = LenientConf(raw if isinstance(raw, dict) else {})
        try:
            config = binascii.a2b_base64(conf.string("config"))
            networks.parse(config, "")
        except (ValueError, CniError):
            config = record.config
        args, own = conf.raw.get("capabilityArgs"), conf.raw.get("own")
        return cls(
            config,
            args if isinstance(args, dict) else record.capability_args,
            _own(own if isinstance(own, dict) else record.extra),
        )

    def to_json(self) -> "dict[str, Any]":
        config = binascii.b2a_base64(self.config, newline=False).decode()
        return {"config": config, "capabilityArgs": self.capability_args, "own": self.own}

    def extra(self, present: "dict[str, Any]") -> "dict[str, Any]":
        """Return the further keys of a record, `present`, with those of this input."""
        return {key: value for key, value in present.items() if key not in _OWN} | self.own


def _own(extra: "dict[str, Any]") -> "dict[str, Any]":
    return {key: extra[key] for key in _OWN if key in extra}


def of_open_change(record: Record) -> "tuple[Input, Input]":
    """Return the input before an interrupted change, and the one that it was about to put in force.

    The keys of cnihook itself are the new ones in the record already, and `pending` has the old ones.
    """
    other = Input.from_json(record.extra["pending"], record)
    present = Input.of(record)
    return (
        Input(present.config, present.capability_args, other.own),
        Input(other.config, other.capability_args, present.own),
    )


def network_of(given: Input, record: Record) -> Network:
    return networks.parse(given.config, f"the record {record.path}")


def types(network: Network) -> "list[str]":
    return [plugin["type"] for plugin in network.plugins]


def differing(before: Network, after: Network, old: Input, new: Input) -> "list[int]":
    return [
        index
        for index in range(len(after.plugins))
        if chain.derive(before, index, old.capability_args, None)
        != chain.derive(after, index, new.capability_args, None)
    ]


def is_updated(before: Network, after: Network, index: int, old: Input, new: Input) -> bool:
    """Return True if update() of a built-in plugin makes this change; one of the interface has few keys."""
    plugin_type = types(after)[index]
    if not hasattr(invoke.load(plugin_type), "update"):
        return False
    if invoke.traits(plugin_type).kind != "interface":
        return True
    keys = [_ROUTES, *(field.folded for field in invoke.fields(plugin_type) if field.change == IN_PLACE)]
    return _without(chain.derive(before, index, old.capability_args, None), keys) == _without(
        chain.derive(after, index, new.capability_args, None), keys
    )


def _without(conf: "dict[str, Any]", keys: "list[str]", above: str = "") -> "dict[str, Any]":
    """Return a configuration without these keys, each in lower case, with those above it: ipam.routes."""
    rest = {}
    for name, value in conf.items():
        path = f"{above}{name.lower()}"
        if path not in keys:
            rest[path] = _without(value, keys, f"{path}.") if isinstance(value, dict) else value
    return rest


def take_down(record: Record, plugin_dirs: "list[str] | None", timeout: float) -> None:
    """Run DEL of the plugins whose input an interrupted change replaced, with the new input.

    The DEL of the whole chain, with the input before that change, follows.
    """
    old, new = Input.of(record), Input.from_json(record.extra["pending"], record)
    try:
        network, request = attachment.restore(record, plugin_dirs, timeout)
    except DamagedRecordError:
        return  # then the names in the record are enough for all that a plugin has set up
    after = network_of(new, record)
    try:
        if types(network) == types(after):
            result = attachment.result_of(network, record)
            try_each(
                *(
                    lambda index=index: _delete(after, index, new, result, request)
                    for index in reversed(differing(network, after, old, new))
                )
            )
    finally:
        request.close()


def _delete(
    network: Network, index: int, given: Input, result: "Result | None", request: Invocation
) -> None:
    conf = NetConf(chain.derive(network, index, given.capability_args, result), network.where(index))
    try:
        invoke.run("DEL", conf.string("type"), for_del(conf), request)
    except Exception as error:
        raise chain.in_context(error, network, index, "delete") from None


def for_del(conf: NetConf) -> NetConf:
    if versions.at_least(conf.string("cniVersion") or versions.OLDEST, "0.4.0"):
        return conf
    return NetConf({key: value for key, value in conf.raw.items() if key != "prevResult"}, conf.where)
