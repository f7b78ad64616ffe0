# SPDX-License-Identifier: Apache-2.0
"""One operation on one network: its plugins in their order, each with the configuration that the
specification derives.
"""

from cnihook.lean.signals import Interrupted
from cnihook.runtime.networks import Network
from cnihook.sdk import invoke
from cnihook.sdk.call import Call, Request
from cnihook.spec import version as versions
from cnihook.spec.config import NetConf, lookup
from cnihook.spec.errors import INTERNAL, AddFailed, CniError, ResourceTaken, as_cni_error
from cnihook.spec.names import check_container_id, check_ifname, check_network_name
from cnihook.spec.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Capabilities = dict[str, Any]


def derive(
    network: Network, index: int, capability_args: "Capabilities", prev_result: "Result | None"
) -> "dict[str, Any]":
    """What plugin `index` gets on its stdin (SPEC.md, "Deriving execution configuration")."""
    plugin = network.plugins[index]
    # The runtime's own keys do not reach a plugin, and `capabilities` is a word to the runtime.
    conf = {key: value for key, value in plugin.items() if not _is_runtimes_own(key)}
    conf["name"] = network.name
    conf["cniVersion"] = network.version
    enabled = lookup(plugin, "capabilities") or {}
    runtime_config = {key: value for key, value in capability_args.items() if enabled.get(key) is True}
    if runtime_config:
        conf["runtimeConfig"] = runtime_config
    if prev_result is not None:
        conf["prevResult"] = prev_result.to_json(network.version)
    return conf


def _is_runtimes_own(key: str) -> bool:
    return key.lower() == "capabilities" or key.startswith("cni.dev/")


def find_plugins(network: Network, plugin_path: "list[str] | None") -> None:
    """CniError unless every plugin that the chain needs is there: half-way is too late to find that out."""
    for index, plugin in enumerate(network.plugins):
        conf = NetConf(plugin)
        try:
            executable = invoke.find(conf.string("type"), plugin_path)
            delegate = conf.object("ipam").string("type")
            if delegate and executable is None:  # an executable finds its own delegates
                invoke.find(delegate, plugin_path)
        except CniError as error:
            raise error.wrapped(network.where(index)) from None


def add(network: Network, request: Request, capability_args: "Capabilities") -> Result:
    """Attach.  If a plugin refuses, the whole chain is taken down again; then AddFailed is raised."""
    check_container_id(request.container_id)
    check_network_name(network.name)
    check_ifname(request.ifname)
    find_plugins(network, request.plugin_path)
    result: Result | None = None
    index = 0
    guards = _guards(network, request)
    try:
        keys: dict[str, Any] = {}
        for index in guards:
            keys |= _prepare(network, index, request, capability_args)
        for index in range(len(network.plugins)):
            result = _run("ADD", network, index, request, capability_args, result, keys) or result
    except Exception as error:
        left = [
            _in_context(another, network, at, "delete")
            for at, another in _delete(network, request, capability_args, result, guards)
            # A plugin behind this one, unless it is a guard, has done nothing that it could have left.
            if at < index
            or at in guards
            or (at == index and not _refuses_alike(network, at, request, error, another))
        ]
        raise add_failed(_in_context(error, network, index, "add"), left) from None
    except BaseException as error:
        failures = _delete(network, request, capability_args, result, guards)
        for at, another in failures:
            error.add_note(f"while undoing: {_in_context(another, network, at, 'delete')}")
        if isinstance(error, Interrupted):
            error.undone = not failures
        raise
    return result or Result()


def add_failed(cause: CniError, left: "list[CniError]") -> AddFailed:
    """Return the error of an ADD that `cause` has ended; `left` are those of the DEL after it."""
    error = AddFailed(cause, undone=not left)
    for note in (*getattr(cause, "__notes__", ()), *(f"while undoing: {another}" for another in left)):
        error.add_note(note)
    return error


def _refuses_alike(
    network: Network, index: int, request: Request, error: Exception, another: Exception
) -> bool:
    """Return True if an executable refuses DEL exactly as it refused ADD, and has made no interface.

    It does not get as far as to do anything then: the reference plugins refuse a configuration so.  What is
    built in reads a malformed value as absent in a DEL.
    """
    added, deleted = as_cni_error(error), as_cni_error(another)
    if (added.code, added.msg) != (deleted.code, deleted.msg):
        return False
    try:
        if invoke.find(NetConf(network.plugins[index]).string("type"), request.plugin_path) is None:
            return False
        return index > 0 or request.sandbox.rtnl.find_link(request.ifname) is None
    except (CniError, OSError):
        return False


def delete(
    network: Network, request: Request, capability_args: "Capabilities", result: "Result | None"
) -> None:
    """Detach, last plugin first, but those that guard the interface after it has gone.

    One that fails keeps none of the others from their part; then the first error is raised.
    """
    failures = _delete(network, request, capability_args, result, _guards(network, request))
    raise_all([_in_context(error, network, index, "delete") for index, error in failures])


def _delete(
    network: Network,
    request: Request,
    capability_args: "Capabilities",
    result: "Result | None",
    guards: "list[int]",
) -> "list[tuple[int, Exception]]":
    """Return the plugins that fail, by their index.  Raises nothing else: an ADD would count as undone."""
    try:
        knows_prev_result = versions.at_least(network.version, "0.4.0")
    except ValueError:
        knows_prev_result = False
    failures: list[tuple[int, Exception]] = []
    others = [index for index in range(len(network.plugins)) if index not in guards]
    for index in (*reversed(others), *reversed(guards)):
        try:
            _run("DEL", network, index, request, capability_args, result if knows_prev_result else None)
        except Exception as error:
            failures.append((index, error))
    return failures


def check(
    network: Network, request: Request, capability_args: "Capabilities", result: "Result | None"
) -> None:
    """Raise the first difference that a plugin finds between what it set up and what is there."""
    versions.check_operation("CHECK", network.version)
    if network.disable_check:
        return
    for _index, error in differences(network, request, capability_args, result):
        raise error


def differences(
    network: Network, request: Request, capability_args: "Capabilities", result: "Result | None"
) -> "Iterator[tuple[int, CniError]]":
    """Each plugin's first difference, with the plugin's place in the chain."""
    for index in range(len(network.plugins)):
        try:
            _run("CHECK", network, index, request, capability_args, result)
        except Exception as error:
            yield index, _in_context(error, network, index, "check")


def put_back(
    network: Network, index: int, request: Request, capability_args: "Capabilities", result: Result
) -> None:
    """Have one plugin set up again what it can without a new link; `result` is the whole chain's.

    CNI has no such operation, so it is the built-in plugins' alone; what is not done, CHECK finds.
    """
    keys: dict[str, Any] = {}
    for guard in _guards(network, request):
        keys |= _prepare(network, guard, request, capability_args)
    derived = derive(network, index, capability_args, result) | (keys if index == 0 else {})
    conf = NetConf(derived, network.where(index))
    plugin_type = conf.string("type")
    if invoke.find(plugin_type, request.plugin_path) is None:
        repair = getattr(invoke.load(plugin_type), "repair", None)
        if repair:
            repair(Call("ADD", conf, request))


def _guards(network: Network, request: Request) -> "list[int]":
    """The places of built-in plugins that guard the interface from before it is up until after it is down.

    They follow it in the chain, where they would come too late on ADD and go too early on DEL.  So they have
    `guards(conf)`, which is true if it is asked for, and `prepare(call, first)`, which is called before the
    first ADD, with the configuration of the first plugin.  It returns keys that the first plugin gets.
    """
    places = []
    for index in range(1, len(network.plugins)):
        conf = NetConf(network.plugins[index], network.where(index))
        try:
            plugin_type = conf.string("type")
            built_in = invoke.find(plugin_type, request.plugin_path) is None
            guards = getattr(invoke.load(plugin_type), "guards", None) if built_in else None
            if guards and guards(conf):
                places.append(index)
        except CniError:
            pass  # a DEL goes on, and an ADD meets it again at its turn
    return places


def _prepare(
    network: Network, index: int, request: Request, capability_args: "Capabilities"
) -> "dict[str, Any]":
    conf = NetConf(derive(network, index, capability_args, None), network.where(index))
    module = invoke.load(conf.string("type"))
    keys: dict[str, Any] = module.prepare(Call("ADD", conf, request), NetConf(network.plugins[0]))
    return keys


def gc(network: Network, keep: "Iterable[tuple[str, str]]", request: Request) -> None:
    """Have every plugin release what no attachment in `keep`, (container ID, ifname), has.  SPEC.md, "GC".

    One that fails keeps none of the others from their part; then the first error is raised.  Networks whose
    version is below 1.1.0 have nothing of the kind, nor have those with disableGC.
    """
    if network.disable_gc or not _knows(network, "GC"):
        return
    attachments = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in sorted(keep)]
    errors: list[CniError] = []
    for index in range(len(network.plugins)):
        # The name that the text of 1.1.0 has, and the one that plugins of that version read.
        extra = {"cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments}
        conf = NetConf(derive(network, index, {}, None) | extra, network.where(index))
        try:
            invoke.run("GC", conf.string("type"), conf, request)
        except Exception as error:
            errors.append(_in_context(error, network, index, "gc"))
    raise_all(errors)


def keep_list(keep: "Iterable[tuple[str, str]]") -> "dict[str, Any]":
    """What GC adds to a plugin's configuration, under today's name and that of the text of 1.1.0."""
    attachments = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in sorted(keep)]
    return {"cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments}


def status(network: Network, request: Request) -> None:
    """Raise the error of the first plugin that is not ready to ADD, its code kept: 50 or 51 by SPEC.md.

    Networks whose version is below 1.1.0 cannot be asked, and are taken to be ready.
    """
    if not _knows(network, "STATUS"):
        return
    for index in range(len(network.plugins)):
        try:
            _run("STATUS", network, index, request, {}, None)
        except Exception as error:
            raise _in_context(error, network, index, "status") from None


def validate(network: Network, plugin_path: "list[str] | None") -> "list[str]":
    """The capabilities that the network's plugins can be given, each once, in their order.

    Raises CniError, with all that is wrong in its notes, where a plugin is missing or does not speak the
    network's version.
    """
    errors: list[CniError] = []
    capabilities: dict[str, None] = {}
    version = network.version or versions.OLDEST
    for index, plugin in enumerate(network.plugins):
        conf = NetConf(plugin, network.where(index))
        plugin_type = conf.string("type")
        try:
            versions.check_supported(version, invoke.supported_versions(plugin_type, plugin_path))
        except CniError as error:
            errors.append(error.wrapped(network.where(index)))
        enabled = conf.object("capabilities").raw
        capabilities.update((name, None) for name, wanted in enabled.items() if wanted is True)
    raise_all(errors)
    return list(capabilities)


def _knows(network: Network, command: str) -> bool:
    try:
        return versions.at_least(network.version, versions.SINCE[command])
    except ValueError:
        return False


def raise_all(errors: "list[CniError]") -> None:
    """The first, with the others as its notes."""
    if errors:
        for another in errors[1:]:
            errors[0].add_note(str(another))
        raise errors[0]


def _run(
    command: str,
    network: Network,
    index: int,
    request: Request,
    capability_args: "Capabilities",
    prev: "Result | None",
    keys: "dict[str, Any] | None" = None,
) -> "Result | None":
    derived = derive(network, index, capability_args, prev)
    if keys and index == 0:
        derived |= keys
    conf = NetConf(derived, network.where(index))
    if command == "ADD":
        versions.check_supported(network.version)
    return invoke.run(command, conf.string("type"), conf, request)


def _in_context(error: Exception, network: Network, index: int, verb: str) -> CniError:
    found = as_cni_error(error)
    plugin_type = network.plugins[index].get("type")
    context = f'plugin type="{plugin_type}" name="{network.name}" failed ({verb})'
    kind = type(found) if isinstance(found, ResourceTaken) else CniError
    wrapped = kind(found.code or INTERNAL, f"{context}: {found.msg}", found.details)
    for note in getattr(error, "__notes__", ()):
        wrapped.add_note(note)
    return wrapped
