# SPDX-License-Identifier: Apache-2.0
"""The pages with tasks: every command is run as written, and its output is compared."""

from collections.abc import Iterator, Mapping

import pytest

from tests.support import pages
from tests.support.host.host import Host
from tests.support.pages import Part

ENGINES = {"podman": "podman", "docker-run": "docker"}
PARTS = [
    pytest.param(
        part,
        id=repr(part),
        marks=[pytest.mark.xdist_group(group) for word, group in ENGINES.items() if part.has(word)],
    )
    for name in ("cookbook", "troubleshooting", "policies", "live")
    for part in pages.parts(name)
]


@pytest.fixture
def variables(
    host: Host, part: Part, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, str]]:
    """Yield the variables of docker's daemon, which runs until after the leak check, if the part uses it."""
    if not part.has("docker-run"):
        yield {}
        return
    with pages.docker(host, tmp_path_factory.mktemp("docker")) as variables:
        yield variables


@pytest.mark.root
@pytest.mark.parametrize("part", PARTS)
def test_every_step_prints_what_the_page_shows(host: Host, part: Part, variables: Mapping[str, str]) -> None:
    """The host is as before at the end, because each part ends with its undo."""
    outputs = pages.run(part, host, variables)

    for step, output in zip(part.steps, outputs, strict=True):
        if not step.hidden and pages.differs(step.expected, output):
            expected = "\n".join(step.expected)
            pytest.fail(f"# {step.command}\n{expected}\n--- but it prints\n{output}", pytrace=False)


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("eth0@if3  UP  fe80::1/64", "eth0@if17 UP fe80::b4ed:fff:fe64:937e/64\n", True),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...", "a\n", True),
        ("web ...", "web attached\n", True),
        ("10.22.0.2/24", "10.22.0.3/24\n", False),
        ("", "one line more\n", False),
        ("a", "", False),
    ],
)
def test_only_values_that_change_with_each_run_may_differ(expected: str, output: str, same: bool) -> None:
    assert pages.differs(expected.splitlines(), output) is not same
