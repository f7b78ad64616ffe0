# SPDX-License-Identifier: Apache-2.0
"""request.options: names that no container may have, and the limits of a request."""

import pytest

from cnihook.request import options
from cnihook.request import values as option_values
from cnihook.request.request import ContainerRequest
from cnihook.types.errors import CniError


def want(**words: str) -> ContainerRequest:
    """Read annotations; `_` in an argument represents a hyphen."""
    return options.from_annotations(
        {f"cnihook.{key.replace('_', '-')}": text for key, text in words.items()}
    )


# Names that other containers look up


RESERVED = [
    *("localhost", "LocalHost", "localhost.", "localhost.localdomain", "db.localhost", "localhost6"),
    *("ip6-localhost", "ip6-allnodes", "gateway", "_gateway", "localhost.example.org"),
    *("host.docker.internal", "gateway.docker.internal", "kubernetes.docker.internal"),
    *("host.containers.internal", "host.minikube.internal"),
]


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_name_is_refused_as_alias_and_host_name(name: str) -> None:
    """Other containers would reach this one instead of themselves or the host."""
    given_by = [{"network_alias": name}, {"networks": f"front:alias={name}"}]
    if "_" not in name:
        given_by.append({"hostname": name})
    for annotations in given_by:
        with pytest.raises(CniError, match="the name is reserved"):
            want(**annotations)


@pytest.mark.parametrize("name", ["localhost", "host.docker.internal", "db.example.org"])
def test_added_host_may_have_any_name(name: str) -> None:
    """Only the container itself reads the entry."""
    assert want(add_host=f"{name}:192.0.2.1").hosts == [(name, "192.0.2.1")]


@pytest.mark.parametrize("name", ["local", "host", "db-localhost", "localhost-db", "internal", "ip6"])
def test_similar_names_are_not_reserved(name: str) -> None:
    assert want(network_alias=name).common.aliases == [name]


# Amounts


@pytest.mark.parametrize(
    ("word", "most", "value"),
    [
        ("network-alias", 64, "a{}"),
        ("add-host", 256, "a{}:192.0.2.1"),
        ("dns", 16, "192.0.2.{}"),
        ("dns-search", 32, "a{}"),
        ("dns-option", 32, "a{}"),
        ("route", 256, "10.0.{}.0/24"),
        ("ip", 64, "10.1.0.{}"),
        ("network", 256, "a{}"),
    ],
)
def test_each_list_has_a_maximum_length(word: str, most: int, value: str) -> None:
    """The limit holds for an annotation and for a flag."""
    name = "cnihook.networks" if word == "network" else f"cnihook.{word}"
    values = [value.format(number + 1 if word == "ip" else number) for number in range(most)]
    options.from_annotations({name: ",".join(values)})
    with pytest.raises(CniError, match=f"more than {most}"):
        options.from_annotations({name: ",".join([*values, value.format(255)])})
    by_flags = ContainerRequest()
    for each in values:
        options.OPTIONS[word].add(by_flags, each)
    with pytest.raises(CniError, match=f"more than {most}"):
        options.OPTIONS[word].add(by_flags, value.format(255))


def test_number_of_aliases_of_a_network_is_limited() -> None:
    aliases = ",".join(f"alias=a{number}" for number in range(65))
    with pytest.raises(CniError, match="64 aliases at most"):
        want(networks=f"front:{aliases}")


def test_number_of_ports_is_limited() -> None:
    """A short range can have thousands of ports."""
    with pytest.raises(CniError, match="more than 65536"):
        want(publish="1-65535,1-65535/udp")
    assert len(want(publish="1-65535").common.ports) == 65535


def test_size_of_cnihooks_annotations_is_limited() -> None:
    """Other annotations are not counted."""
    options.from_annotations({"kubectl.kubernetes.io/last-applied-configuration": "x" * (1 << 20)})
    with pytest.raises(CniError, match=r"annotation cnihook\.dns-search: .* 65536 is the most"):
        options.from_annotations({"cnihook.dns-search": "x" * 70_000})
    with pytest.raises(CniError, match="65536 is the most"):
        options.from_annotations({option_values.NPWG: "x" * 70_000})
