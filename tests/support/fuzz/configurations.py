# SPDX-License-Identifier: Apache-2.0
"""Targets that read input of users and runtimes, such as states, configurations, annotations, results."""

import json

from cnihook.fast import fastjson
from cnihook.oci import state
from cnihook.oci.bundle import Bundle
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.request import npwg, options
from cnihook.request.request import ContainerRequest, NetworkRequest
from cnihook.request.resolve import resolve
from cnihook.runtime import networks
from cnihook.runtime.networks import Network
from cnihook.types import versions
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError
from cnihook.types.result import Result
from tests.support.fuzz.target import Broken, Target, same, seed

SEPARATOR = "\n--\n"  # between the parts of an input that has two
NETWORK = seed("network", "chain")


def _loads(data: bytes) -> object:
    """Parse JSON.  Raises CniError for another text, as every reader does."""
    try:
        return fastjson.loads(data.decode())
    except ValueError as error:
        raise CniError(6, str(error)) from None


def _json(data: bytes) -> None:
    """Check that fastjson reads what json reads, except what is not JSON, and writes what both read."""
    text = data.decode()
    value = fastjson.loads(text)
    # repr: 1 is not true, and -0.0 is not 0.0
    same(repr(value), repr(json.loads(text)), "fastjson and json")
    same(repr(fastjson.loads(fastjson.dumps(value))), repr(value), "what is written is read again")
    same(repr(json.loads(fastjson.dumps(value, indent=1))), repr(value), "what is written is JSON")


def _state(data: bytes) -> None:
    container = state.parse(data)
    if "/" in container.id or container.pid < 0:
        raise Broken(f"{container.id} {container.pid}")


def _bundle(data: bytes) -> None:
    raw = _loads(data)
    if isinstance(raw, dict):
        config = Bundle(raw, "/bundle/config.json")
        for name in ("network_namespace", "uts_namespace", "hostname", "domainname", "mounts", "root"):
            getattr(config, name)
        config.hook_timeout("createRuntime")


def _network(data: bytes) -> None:
    network = networks.parse(data, "x.conflist")
    again = networks.parse(network.text, "x.conflist")
    same((again.name, again.version), (network.name, network.version), "a network read again")
    _serve(network, ContainerRequest())


def _serve(network: Network, request: ContainerRequest) -> None:
    """Translate a request for the plugins, as the hook does."""
    first = (request.networks or [NetworkRequest(network.name)])[0]
    first.network = network.name
    resolve([(network, first)], request.common)


def _annotations(data: bytes) -> None:
    """Read annotations, from lines of NAME=TEXT."""
    lines = [line.partition("=") for line in data.decode().split("\n")]
    request = options.from_annotations({name: text for name, equals, text in lines if equals})
    _serve(networks.parse(NETWORK, "x"), request)


def _options(data: bytes) -> None:
    """Read options, from lines of NAME=VALUE.  Each option must also be valid as an annotation."""
    lines = [line.partition("=") for line in data.decode().split("\n")]
    chosen = [(name, text) for name, _, text in lines if name in options.OPTIONS]
    options.from_annotations(options.to_annotations(chosen))


def _npwg(data: bytes) -> None:
    npwg.parse(data.decode())


def _result(data: bytes) -> None:
    version, _, text = data.decode().partition(SEPARATOR)
    result = Result.from_json(_loads(text.encode()), version)
    for each in versions.ALL:
        written = result.to_json(each)
        again = Result.from_json(written, each)
        same(again.to_json(each), written, f"a result of {each}")


def _plugin(data: bytes) -> None:
    """Read a plugin's type and its configuration."""
    name, _, text = data.decode().partition(SEPARATOR)
    if invoke.find(name, None):
        return
    raw = _loads(text.encode())
    if isinstance(raw, dict) and (conf := getattr(invoke.load(name), "Conf", None)):
        call = Call("ADD", NetConf(raw), Invocation("c1", "", "eth0"))
        try:
            conf(call)
        except OSError:
            pass  # it names a file that does not exist, or is a link
        finally:
            call.request.close()


def _cni_args(data: bytes) -> None:
    call = Call("ADD", NetConf({}), Invocation("c1", "", "eth0", args=data.decode()))
    for name in ("IP", "MAC", "GATEWAY"):
        call.arg(name)


def _attachments(data: bytes) -> None:
    """Read GC's list of valid attachments."""
    raw = _loads(data)
    if isinstance(raw, dict):
        Call("GC", NetConf(raw), Invocation("", "", "")).valid_attachments()


NOT_TEXT = (CniError, UnicodeDecodeError)
TARGETS = (
    Target("json", _json, (ValueError,)),
    Target("state", _state),
    Target("config", _bundle),
    Target("network", _network),
    Target("annotations", _annotations, NOT_TEXT),
    Target("options", _options, NOT_TEXT),
    Target("npwg", _npwg, NOT_TEXT),
    Target("result", _result, NOT_TEXT),
    Target("plugin", _plugin, NOT_TEXT),
    Target("cni-args", _cni_args, NOT_TEXT),
    Target("attachments", _attachments),
)
