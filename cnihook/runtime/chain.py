# SPDX-License-Identifier: Apache-2.0
"""One operation on one network: runs its plugins in order, each with its execution configuration."""

from cnihook.log import step
from cnihook.process.signals import Interrupted
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.runtime.networks import Network
from cnihook.types import versions
from cnihook.types.config import NetConf, lookup
from cnihook.types.errors import INTERNAL, AddFailedError, CniError, ResourceTakenError, as_cni_error
from cnihook.types.names import check_container_id, check_ifname, check_network_name
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Capabilities = dict[str, Any]


def derive(
    network: Network, index: int, capability_args: "Capabilities", prev_result: "Result | None"
) -> "dict[str, Any]":
    """Return the stdin of plugin `index` (SPEC.md, "Deriving execution configuration")."""
    plugin = network.plugins[index]
    # Plugins do not get keys that are for the runtime; `capabilities` is one of them.
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


def find_plugins(network: Network, plugin_dirs: "list[str] | None") -> None:
    """Raise CniError if a plugin of the chain is missing: in the middle of an ADD that is too late."""
    for index, plugin in enumerate(network.plugins):
        conf = NetConf(plugin)
        try:
            executable = invoke.find(conf.string("type"), plugin_dirs)
            delegate = conf.object("ipam").string("type")
            if delegate and executable is None:  # an executable finds its own delegates
                invoke.find(delegate, plugin_dirs)
        except CniError as error:
            raise error.wrapped(network.where(index)) from None


def add(network: Network, request: Invocation, capability_args: "Capabilities") -> Result:
    """Run ADD for each plugin.  If one fails, run DEL for the whole chain, then raise AddFailedError."""
    check_container_id(request.container_id)
    check_network_name(network.name)
    check_ifname(request.ifname)
    find_plugins(network, request.plugin_dirs)
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
            in_context(another, network, at, "delete")
            for at, another in _delete(network, request, capability_args, result, guards)
            # A later plugin that is not a guard has not run, so it has left nothing.
            if at < index
            or at in guards
            or (at == index and not _refuses_alike(network, at, request, error, another))
        ]
        raise add_failed(in_context(error, network, index, "add"), left) from None
    except BaseException as error:
        failures = _delete(network, request, capability_args, result, guards)
        for at, another in failures:
            error.add_note(f"while undoing: {in_context(another, network, at, 'delete')}")
        if isinstance(error, Interrupted):
            error.undone = not failures
        raise
    return result or Result()


def add_failed(cause: CniError, left: "list[CniError]") -> AddFailedError:
    """Return the error of an ADD that failed with `cause`; `left`: the errors of the DEL after it."""
    error = AddFailedError(cause, undone=not left)
    for note in (*getattr(cause, "__notes__", ()), *(f"while undoing: {another}" for another in left)):
        error.add_note(note)
    return error


def _refuses_alike(
    network: Network, index: int, request: Invocation, error: Exception, another: Exception
) -> bool:
    """Return True if an executable rejects DEL exactly as it rejected ADD, and has created no interface.

    It has then done nothing: the reference plugins reject a malformed configuration in this way.  Built-in
    plugins treat a malformed value as absent in a DEL.
    """
    added, deleted = as_cni_error(error), as_cni_error(another)
    if (added.code, added.msg) != (deleted.code, deleted.msg):
        return False
    try:
        if invoke.find(NetConf(network.plugins[index]).string("type"), request.plugin_dirs) is None:
            return False
        return index > 0 or request.sandbox.rtnl.find_link(request.ifname) is None
    except (CniError, OSError):
        return False


def delete(
    network: Network, request: Invocation, capability_args: "Capabilities", result: "Result | None"
) -> None:
    """Run DEL for each plugin, the last one first; guards run after the interface is gone.

    The other plugins still run after one has failed; then the first error is raised.
    """
    failures = _delete(network, request, capability_args, result, _guards(network, request))
    raise_all([in_context(error, network, index, "delete") for index, error in failures])


def _delete(
    network: Network,
    request: Invocation,
    capability_args: "Capabilities",
    result: "Result | None",
    guards: "list[int]",
) -> "list[tuple[int, Exception]]":
    """Return the plugins that fail, by their index.  Raises no error: the ADD would count as undone."""
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
    network: Network, request: Invocation, capability_args: "Capabilities", result: "Result | None"
) -> None:
    """Raise the first difference that a plugin finds between what it set up and what is there."""
    versions.check_operation("CHECK", network.version)
    if network.disable_check:
        return
    for _index, error in differences(network, request, capability_args, result):
        raise error


def differences(
    network: Network, request: Invocation, capability_args: "Capabilities", result: "Result | None"
) -> "Iterator[tuple[int, CniError]]":
    """Yield the first difference of each plugin, with the plugin's index in the chain."""
    for index in range(len(network.plugins)):
        try:
            _run("CHECK", network, index, request, capability_args, result)
        except Exception as error:
            yield index, in_context(error, network, index, "check")


def repair_plugin(
    network: Network, index: int, request: Invocation, capability_args: "Capabilities", result: Result
) -> None:
    """Have one plugin restore what it can without a new link.  `result`: that of the whole chain.

    CNI has no such operation, so only built-in plugins have it.  CHECK finds what is still missing.
    """
    keys: dict[str, Any] = {}
    for guard in _guards(network, request):
        keys |= _prepare(network, guard, request, capability_args)
    derived = derive(network, index, capability_args, result) | (keys if index == 0 else {})
    conf = NetConf(derived, network.where(index))
    plugin_type = conf.string("type")
    if invoke.find(plugin_type, request.plugin_dirs) is None:
        repair = getattr(invoke.load(plugin_type), "repair", None)
        if repair:
            repair(Call("ADD", conf, request))


def _guards(network: Network, request: Invocation) -> "list[int]":
    """Return the indexes of the guards: built-in plugins that protect the interface for as long as it is up.

    They follow the interface plugin in the chain, where their ADD runs too late and their DEL too early.  So
    they have two more functions.  `guards(conf)` is true if the configuration asks for a guard.
    `prepare(call, first)` is called before the first ADD, with the configuration of the first plugin.  It
    returns keys for that plugin.
    """
    places = []
    for index in range(1, len(network.plugins)):
        conf = NetConf(network.plugins[index], network.where(index))
        try:
            plugin_type = conf.string("type")
            built_in = invoke.find(plugin_type, request.plugin_dirs) is None
            guards = getattr(invoke.load(plugin_type), "guards", None) if built_in else None
            if guards and guards(conf):
                places.append(index)
        except CniError:
            pass  # DEL continues; ADD raises the same error when it runs this plugin
    return places


def _prepare(
    network: Network, index: int, request: Invocation, capability_args: "Capabilities"
) -> "dict[str, Any]":
    conf = NetConf(derive(network, index, capability_args, None), network.where(index))
    module = invoke.load(conf.string("type"))
    keys: dict[str, Any] = module.prepare(Call("ADD", conf, request), NetConf(network.plugins[0]))
    return keys


def gc(network: Network, keep: "Iterable[tuple[str, str]]", request: Invocation) -> None:
    """Have every plugin release what no attachment in `keep` has.  SPEC.md, "GC".

    `keep`: each valid attachment as (container ID, ifname).  The other plugins still run after one has
    failed; then the first error is raised.  Does nothing on a network whose version is below 1.1.0, or that
    has disableGC.
    """
    if network.disable_gc or not _knows(network, "GC"):
        return
    attachments = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in sorted(keep)]
    errors: list[CniError] = []
    for index in range(len(network.plugins)):
        # The key in the text of 1.1.0, and the one that plugins of that version read.
        extra = {"cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments}
        conf = NetConf(derive(network, index, {}, None) | extra, network.where(index))
        try:
            invoke.run("GC", conf.string("type"), conf, request)
        except Exception as error:
            errors.append(in_context(error, network, index, "gc"))
    raise_all(errors)


def keep_list(keep: "Iterable[tuple[str, str]]") -> "dict[str, Any]":
    """Return what GC adds to a plugin's configuration, under today's key and that of the text of 1.1.0."""
    attachments = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in sorted(keep)]
    return {"cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments}


def status(network: Network, request: Invocation) -> None:
    """Raise the error of the first plugin that is not ready for ADD, with its code: 50 or 51 by SPEC.md.

    A network whose version is below 1.1.0 has no STATUS and counts as ready.
    """
    if not _knows(network, "STATUS"):
        return
    for index in range(len(network.plugins)):
        try:
            _run("STATUS", network, index, request, {}, None)
        except Exception as error:
            raise in_context(error, network, index, "status") from None


def validate(network: Network, plugin_dirs: "list[str] | None") -> "list[str]":
    """Return the capabilities that the network's plugins enable, each once, in order.

    Raises CniError if a plugin is missing or does not support the network's version.  Its notes hold the
    other errors.
    """
    errors: list[CniError] = []
    version = network.version or versions.OLDEST
    for index, plugin in enumerate(network.plugins):
        conf = NetConf(plugin, network.where(index))
        plugin_type = conf.string("type")
        try:
            versions.check_supported(version, invoke.supported_versions(plugin_type, plugin_dirs))
        except CniError as error:
            errors.append(error.wrapped(network.where(index)))
    raise_all(errors)
    return network.capabilities


def _knows(network: Network, command: str) -> bool:
    try:
        return versions.at_least(network.version, versions.SINCE[command])
    except ValueError:
        return False


def raise_all(errors: "list[CniError]") -> None:
    """Raise the first error, with the others as its notes; do nothing without an error."""
    if errors:
        for another in errors[1:]:
            errors[0].add_note(str(another))
        raise errors[0]


def _run(
    command: str,
    network: Network,
    index: int,
    request: Invocation,
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
    plugin_type = conf.string("type")
    try:
        return invoke.run(command, plugin_type, conf, request)
    finally:
        step(f"{command} {plugin_type}")


def in_context(error: Exception, network: Network, index: int, verb: str) -> CniError:
    """Return the error of a plugin, with the operation and the place of the plugin in its message."""
    cause = as_cni_error(error)
    plugin_type = network.plugins[index].get("type")
    context = f'plugin type="{plugin_type}" name="{network.name}" failed ({verb})'
    kind = type(cause) if isinstance(cause, ResourceTakenError) else CniError
    wrapped = kind(cause.code or INTERNAL, f"{context}: {cause.msg}", cause.details)
    for note in getattr(error, "__notes__", ()):
        wrapped.add_note(note)
    return wrapped
