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
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Input(Value):
    """The input of an attachment's plugins: the network's configuration, and capability arguments."""

    __slots__ = ("capability_args", "config")

    def __init__(self, config: bytes, capability_args: "dict[str, Any]") -> None:
        self.config = config
        self.capability_args = capability_args

    @classmethod
    def of(cls, record: Record) -> "Input":
        return cls(record.config, record.capability_args)

    @classmethod
    def from_json(cls, raw: object, record: Record) -> "Input":
        """Return the input under a key of a record.  The record's own replaces a malformed value."""
        conf = LenientConf(raw if isinstance(raw, dict) else {})
        try:
            config = binascii.a2b_base64(conf.string("config"))
            networks.parse(config, "")
        except (ValueError, CniError):
            config = record.config
        args = conf.raw.get("capabilityArgs")
        return cls(config, args if isinstance(args, dict) else record.capability_args)

    def to_json(self) -> "dict[str, Any]":
        config = binascii.b2a_base64(self.config, newline=False).decode()
        return {"config": config, "capabilityArgs": self.capability_args}


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
