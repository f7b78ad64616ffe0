# SPDX-License-Identifier: Apache-2.0
"""
The annotations `cnihook.*` of a Kubernetes pod, which containerd and CRI-O pass to a plugin by a capability:

    {"type": "bridge", "capabilities": {"io.kubernetes.cri.pod-annotations": true}, ...}

The plugin that makes the interface serves them, its IPAM plugin included.  A chained plugin cannot: it does
not see whether the others of its network get the annotations, too.  So a pod may request what the interface
plugin can do.  The rest has a field of its own in Kubernetes, which the option table names.
"""

from cnihook.protocol import invoke
from cnihook.request import option_table, options, trusted_annotations
from cnihook.request.request import NetworkRequest
from cnihook.request.resolve import resolve
from cnihook.runtime import networks
from cnihook.runtime.networks import Network, ipam_type
from cnihook.types.config import NetConf
from cnihook.types.errors import INVALID_CONFIG, CniError
from cnihook.types.fields import POD_ANNOTATIONS, Traits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_UNTOUCHED = ("", "ipam")  # a plugin of another author; one whose interface plugin has served the requests


def serve(conf: NetConf, traits: Traits, *, is_bounded: bool) -> NetConf:
    """Return the configuration of a plugin for ADD, with what its pod requests.

    `is_bounded`: check the bounds of this host.  Raises CniError if the request is malformed or not allowed,
    or if the plugin cannot serve it.
    """
    of_pod = conf.object("runtimeConfig").object(POD_ANNOTATIONS)
    annotations = {name: of_pod.string(name) for name in of_pod.raw if name.startswith(options.PREFIX)}
    if traits.kind in _UNTOUCHED:
        return conf
    if traits.kind != "interface":
        raise _refuse(
            next(iter(annotations)),
            f'the plugin {conf.string("type")} has the capability "{POD_ANNOTATIONS}"',
            "only the plugin that makes the interface can serve annotations: set the capability there alone",
        )
    _check_possible(annotations)
    network = _network_of(conf, traits)
    if is_bounded:
        request = trusted_annotations.of_pod(annotations)
        if request.guard:
            request.guard.check_network(network, request)
    else:
        request = options.from_annotations(annotations)
    (served,) = resolve([(network, NetworkRequest(network.name))], request.common)
    plugin = {**served.network.plugins[0], "name": network.name, "cniVersion": conf.string("cniVersion")}
    plugin["runtimeConfig"] = {**conf.object("runtimeConfig").raw, **served.capability_args}
    return NetConf(plugin, conf.where)


def _check_possible(annotations: "Iterable[str]") -> None:
    """Raise CniError for an annotation that a pod cannot have."""
    entries = {entry.annotation: entry for entry in option_table.TABLE if entry.annotation}
    for name in annotations:
        if name not in entries:
            possible = ", ".join(each for each, entry in entries.items() if not entry.in_kubernetes)
            raise _refuse(name, "unknown annotation", f"pods have {possible}")
        if instead := entries[name].in_kubernetes:
            raise _refuse(name, "a plugin cannot serve it", f"in Kubernetes: {instead}")


def _refuse(annotation: str, why: str, hint: str) -> CniError:
    return CniError(INVALID_CONFIG, f"annotation {annotation}: {why}", hint)


def _network_of(conf: NetConf, traits: Traits) -> Network:
    """Return a network of this plugin alone, which has all capabilities that it and its IPAM plugin take."""
    fields = (*traits.capabilities, *invoke.traits(ipam_type(conf.raw)).capabilities)
    plugin = {**conf.raw, "capabilities": {field.name: True for field in fields}}
    raw = {"cniVersion": conf.string("cniVersion"), "name": conf.string("name"), "plugins": [plugin]}
    return networks.from_raw(raw, b"", conf.where or f"plugin {conf.string('type')}")
