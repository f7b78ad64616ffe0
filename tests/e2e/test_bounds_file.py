# SPDX-License-Identifier: Apache-2.0
"""The file with bounds on annotations: malformed, or writable for others."""

import json

import pytest

from tests.e2e.test_bounds import BACK, BOUNDS, FRONT, Hook, write_bounds
from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, configure


@pytest.fixture
def hook(host: Host) -> Hook:
    configure(host, FRONT, BACK)
    return Hook(host)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "error parsing"),
        ("[]", "must be an object"),
        ("{", "error parsing"),
        ('{"annotation": {}}', '"annotation" is not a key'),
        ('{"Annotations": {}}', '"Annotations" is not a key'),
        ('{"annotations": null}', '"annotations" is null'),
        ('{"annotations": {"alow": []}}', '"alow" is not a key'),
        ('{"annotations": {"allow": null}}', '"allow" is null'),
        ('{"annotations": {"allow": "dns"}}', '"allow" must be a list'),
        ('{"annotations": {"allow": ["dsn"]}}', "'dsn': does not exist"),
        ('{"annotations": {"networks": ["a b"]}}', '"networks" is wrong'),
        ('{"annotations": {"ports": "0-70000"}}', '"ports" is wrong'),
        ('{"annotations": {"ports": ""}}', '"ports" is wrong'),
        ('{"annotations": {"ports": 80}}', '"ports" must be a string'),
        ('{"annotations": {"trustImages": 1}}', '"trustImages" must be a boolean'),
    ],
)
def test_malformed_file_rejects_containers_with_annotations(
    host: Host, hook: Hook, text: str, problem: str
) -> None:
    write_bounds(host, text)

    refused = hook({"cnihook.networks": "front"})
    assert f"{BOUNDS}: " in refused and problem in refused
    for command in (("validate",), ("validate", BOUNDS), ("doctor",)):
        outcome = host.run(CNIHOOK, *command, check=False)
        assert outcome.returncode == 1 and problem in outcome.stdout and BOUNDS in outcome.stdout, outcome


def test_validate_finds_every_problem_of_the_file(host: Host, hook: Hook) -> None:
    host.write(
        "/run/.host/new.json", '{"annotations": {"allow": ["x"], "ports": "0", "networks": 3, "no": 1}}'
    )
    outcome = host.run(CNIHOOK, "validate", "--json", "/run/.host/new.json", check=False)

    assert {each["key"] for each in json.loads(outcome.stdout)} == {"allow", "ports", "networks", "no"}
    host.write("/run/.host/new.json", '{"annotations": {"allow": ["dns"], "ports": "80,1024-65535"}}')
    assert "no problem found" in host.run(CNIHOOK, "validate", "/run/.host/new.json").stdout


@pytest.mark.parametrize("how", ["chmod 664", "chmod 646", "chown 65534", "folder", "fifo", "/dev/zero"])
def test_file_that_others_can_write_rejects_containers(host: Host, hook: Hook, how: str) -> None:
    write_bounds(host, {"allow": ["networks"]})
    command = {
        "folder": f"rm {BOUNDS}; mkdir {BOUNDS}",
        "fifo": f"rm {BOUNDS}; mkfifo -m 644 {BOUNDS}",
        "/dev/zero": f"rm {BOUNDS}; mknod -m 644 {BOUNDS} c 1 5",
    }.get(how, f"{how} {BOUNDS}")
    host.run("sh", "-c", command)

    assert f"{BOUNDS}: " in hook({"cnihook.networks": "front"})
    outcome = host.run(CNIHOOK, "doctor", check=False)
    assert BOUNDS in outcome.stdout, outcome


def test_doctor_reports_a_folder_that_others_can_write(host: Host, hook: Hook) -> None:
    write_bounds(host, {})
    host.run("chmod", "777", "/etc/cnihook")

    assert (
        "bounds: /etc/cnihook: users other than root can write"
        in host.run(CNIHOOK, "doctor", check=False).stdout
    )
