# SPDX-License-Identifier: Apache-2.0
"""cnihook schema: the networks of the pages and examples fit the schema, and wrong values do not."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnihook.cli.main import run
from cnihook.cli.shared import json_schema
from cnihook.protocol import invoke
from cnihook.runtime import networks
from tests.support.plugins.cni import CHECKOUT
from tests.unit.test_validate_keys import SAMPLES

NETWORK = json_schema.of_network()
JSON_TYPES = {"boolean": bool, "integer": int, "string": str, "object": dict, "array": list}
# What the schemas use of draft 2020-12.  The package jsonschema is not a dependency of the tests.
KEYWORDS = {
    "$schema", "$defs", "$ref", "title", "description", "default", "examples", "type", "const", "enum",
    "minimum", "maximum", "pattern", "minItems", "minProperties", "items", "properties", "required",
    "additionalProperties", "allOf", "if", "then", "else",
}  # fmt: skip


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "") -> Iterator[str]:
    """Yield what is wrong with a value, by the keywords of KEYWORDS."""
    if "$ref" in schema:
        yield from problems(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, where)
    if "type" in schema and type(value) is not JSON_TYPES[schema["type"]]:
        yield f"{where}: not of type {schema['type']}"
        return
    if "const" in schema and value != schema["const"] or value not in schema.get("enum", [value]):
        yield f"{where}: not an allowed value"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{where}: out of bounds"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{where}: does not match"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{where}: too few items"
        for index, item in enumerate(value):
            yield from problems(item, schema.get("items", {}), root, f"{where}[{index}]")
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}: {name} is missing"
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            yield from problems(item, inner, root, f"{where}.{name}")
        if len(value) < schema.get("minProperties", 0):
            yield f"{where}: too few keys"
    for part in schema.get("allOf", ()):
        yield from problems(value, part, root, where)
    if "if" in schema:
        branch = "else" if list(problems(value, schema["if"], root)) else "then"
        yield from problems(value, schema.get(branch, {}), root, where)


def schemas(schema: Any, is_schema: bool = True) -> Iterator[dict[str, Any]]:
    """Yield a schema and all that are in it."""
    if isinstance(schema, list):
        for item in schema:
            yield from schemas(item)
    if isinstance(schema, dict):
        if is_schema:
            yield schema
        for key, inner in schema.items():
            if key not in ("default", "examples", "enum", "const", "required"):
                yield from schemas(inner, is_schema=not is_schema or key not in ("properties", "$defs"))


@pytest.mark.parametrize("name", ["network", *invoke.built_in_types()])
def test_schema_is_well_formed(name: str) -> None:
    schema = NETWORK if name == "network" else json_schema.of_plugin(name)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in schemas(schema):
        assert part.keys() <= KEYWORDS
        if "properties" in part:
            assert set(part.get("required", ())) <= part["properties"].keys()
        if "$ref" in part:
            assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]
        if "type" in part:
            assert part["type"] in JSON_TYPES
        if "default" in part:
            assert list(problems(part["default"], part, schema)) == [], part
        if "pattern" in part:
            re.compile(part["pattern"])


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each network of the pages, of README and of oci-examples, and the built-in one."""
    yield "built-in", json.loads(networks.BUILT_IN)
    folders = (CHECKOUT / "cnihook" / "pages", CHECKOUT / "oci-examples", CHECKOUT)
    paths = [path for folder in folders for path in sorted(folder.glob("*.md"))]
    for path in paths:
        for index, text in enumerate(re.findall(r"^\{$.*?^\}$", path.read_text(), re.S | re.M)):
            yield from network(f"{path.name} {index}", text)
    for path in sorted((CHECKOUT / "oci-examples").rglob("*")):
        if path.suffix in (".conf", ".conflist", ".json"):
            yield from network(path.name, path.read_text())


def network(name: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        raw = json.loads(text)
    except ValueError:
        return  # a part is left out, or it is a template
    if "cniVersion" in raw and ("plugins" in raw or "type" in raw):
        yield name, raw


EXAMPLES = dict(examples())


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_network_fits_the_schema(name: str) -> None:
    assert list(problems(EXAMPLES[name], NETWORK, NETWORK)) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_all_keys_of_a_plugin_fit_the_schemas(name: str) -> None:
    plugin = copy.deepcopy(SAMPLES[name])
    own = json_schema.of_plugin(plugin["type"])

    assert list(problems(plugin, own, own)) == []
    assert list(problems({"cniVersion": "1.1.0", "name": "x", "plugins": [plugin]}, NETWORK, NETWORK)) == []
    assert list(problems({"cniVersion": "1.1.0", "name": "x", **plugin}, NETWORK, NETWORK)) == []


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        ({"type": "bridge", "mtu": "x"}, ".mtu: not of type integer"),
        ({"type": "bridge", "mtu": 70000}, ".mtu: out of bounds"),
        ({"type": "bridge", "isGateway": "true"}, ".isGateway: not of type boolean"),
        ({"type": "bridge", "vlanTrunk": [{"id": 0}]}, ".vlanTrunk[0].id: out of bounds"),
        ({"type": "bridge", "ipam": {"subnet": "10.1.0.0/24"}}, ".ipam: type is missing"),
        ({"type": "ptp"}, ": ipam is missing"),
        ({"type": "dummy", "ipam": {"type": "static", "addresses": [{}]}},
         ".ipam.addresses[0]: address is missing"),
        ({"type": "dummy", "ipam": {"type": "host-local", "ranges": [{"subnet": "10.1.0.0/24"}]}},
         ".ipam.ranges[0]: not of type array"),
        ({"type": "dummy", "ipam": {"type": "host-local", "subnet": "10.1.0.0"}},
         ".ipam.subnet: does not match"),
        ({"type": "ipvlan", "mode": "l4"}, ".mode: not an allowed value"),
        ({"type": "tuning", "sysctl": {"net.core.somaxconn": 5}},
         ".sysctl.net.core.somaxconn: not of type string"),
        ({"type": "portmap", "capabilities": {"portMappings": "yes"}},
         ".capabilities.portMappings: not of type boolean"),
        ({"bridge": "br0"}, ": type is missing"),
    ],
)  # fmt: skip
def test_wrong_value_does_not_fit(plugin: dict[str, Any], problem: str) -> None:
    listed = {"cniVersion": "1.1.0", "name": "x", "plugins": [plugin]}
    assert f".plugins[0]{problem}" in list(problems(listed, NETWORK, NETWORK))
    if "type" in plugin:
        assert problem in list(problems({"name": "x", **plugin}, NETWORK, NETWORK))


@pytest.mark.parametrize("ipam", [{}, {"type": "not-built-in", "anything": 5}])
def test_empty_ipam_and_unknown_plugin_fit(ipam: dict[str, Any]) -> None:
    plugins = [{"type": "bridge", "ipam": ipam, "own": {"x": 1}}, {"type": "not-built-in", "mtu": "x"}]

    assert list(problems({"name": "x", "plugins": plugins}, NETWORK, NETWORK)) == []


def test_command_prints_a_schema(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["schema"]) == 0
    assert json.loads(capfd.readouterr().out) == NETWORK
    assert run(["schema", "network"]) == 0
    assert json.loads(capfd.readouterr().out) == NETWORK
    assert run(["schema", "host-local"]) == 0
    assert json.loads(capfd.readouterr().out)["title"] == "CNI plugin host-local"
    assert run(["schema", "nosuch"]) == 2
    assert "no plugin 'nosuch'; there are: network, bandwidth, bridge" in capfd.readouterr().err
