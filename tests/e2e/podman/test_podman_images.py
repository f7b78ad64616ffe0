# SPDX-License-Identifier: Apache-2.0
"""Images whose manifest has annotations, which podman before 4.6 copies into the container."""

import hashlib
import json
import subprocess

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, RESULTS
from tests.support.runtimes.podman import FOR_EVER, IMAGE, LIMITS, Podman, version

CNI_RUNC = str(CHECKOUT / "scripts" / "cni-runc")
HOOKS = "/run/.host/hooks.d"
BOUNDS = "/etc/cnihook/config.json"
WHY = "copies annotations of the image into the container"
# The second and third would hide that podman made the container if cnihook relied on them.
ANNOTATIONS = {
    "cnihook.networks": "mynet",
    "io.container.manager": "other",
    "org.opencontainers.image.stopSignal": "15",
}


@pytest.fixture(autouse=True)
def bounds_and_logs_stay(host: Host) -> None:
    host.leaves("file /run/cnihook/podman", "file /run/cnihook/log/*", "* /etc/cnihook*")


@pytest.fixture
def image(host: Host, requesting_image: str) -> str:
    """Return that image, if podman copies its annotations."""
    if version() >= (4, 6):
        pytest.skip("podman 4.6 or newer copies no annotations")
    return requesting_image


@pytest.fixture
def requesting_image(host: Host, podman: Podman) -> str:
    """Return the ID of an image whose annotations request a network."""
    folder = "/run/image/oci"
    host.run("mkdir", "/run/image")
    podman("save", "--format", "oci-dir", "--output", folder, IMAGE)
    index = json.loads(host.read(f"{folder}/index.json"))
    (entry,) = index["manifests"]
    manifest = json.loads(host.read(f"{folder}/blobs/{entry['digest'].replace(':', '/')}"))
    text = json.dumps(manifest | {"annotations": ANNOTATIONS})
    digest = hashlib.sha256(text.encode()).hexdigest()
    entry |= {"digest": f"sha256:{digest}", "size": len(text)}
    host.write(f"{folder}/blobs/sha256/{digest}", text)
    host.write(f"{folder}/index.json", json.dumps(index))
    image_id = podman("pull", "--quiet", f"oci:{folder}").stdout.strip()
    host.run("rm", "-r", "/run/image")
    return image_id


def install(host: Host, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return host.run(CNIHOOK, "hooks.d", "install", "--dir", HOOKS, *words, check=check)


def run(podman: Podman, image: str, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    options = ("run", "--rm", *LIMITS, "--network", "none")
    return podman("--hooks-dir", HOOKS, *words, *options, image, "ip", "-4", "-o", "addr", check=check)


def refused(host: Host, outcome: subprocess.CompletedProcess[str]) -> bool:
    left = host.listdir(RESULTS) if host.exists(RESULTS) else []
    return outcome.returncode != 0 and "eth0" not in outcome.stdout and WHY in outcome.stderr and not left


def test_newer_podman_copies_no_annotations(host: Host, podman: Podman, requesting_image: str) -> None:
    if version() < (4, 6):
        pytest.skip("podman before 4.6 copies annotations")
    install(host)

    assert "eth0" not in run(podman, requesting_image, check=True).stdout


def test_install_refuses_a_podman_that_copies_annotations(host: Host, podman: Podman, image: str) -> None:
    outcome = install(host, check=False)

    assert outcome.returncode == 1 and outcome.stderr.count("\n") == 1 and not host.exists(HOOKS)
    assert "podman 4.3" in outcome.stderr and WHY in outcome.stderr and "--trust-images" in outcome.stderr
    install(host, "--trust-images")
    assert "eth0    inet 10.22." in run(podman, image, check=True).stdout


def test_hook_refuses_annotations_if_podman_was_replaced_after_install(
    host: Host, podman: Podman, image: str
) -> None:
    """An older podman may be installed after the hook."""
    newer(host, "4.6.0")
    outcome = host.run(CNIHOOK, "hooks.d", "install", "--dir", HOOKS, env=newer_first(podman))
    assert outcome.stderr == ""

    for _ in range(2):  # the version is cached the second time
        assert refused(host, run(podman, image))
    assert host.read("/run/cnihook/podman").split()[1].startswith("4.3")


@pytest.mark.parametrize("words", [(), ("--annotation", "cnihook.dns=192.0.2.1")])
def test_cni_runc_refuses_annotations(
    host: Host, podman: Podman, image: str, words: tuple[str, ...]
) -> None:
    """A sysctl in addition changes nothing."""
    for more in ((), ("--sysctl", "net.cnihook.networks=mynet")):
        options = ("run", "--rm", *LIMITS, "--network", "none", *words, *more, image, "true")
        assert refused(host, podman("--runtime", CNI_RUNC, *options, check=False))


def test_cni_runc_obeys_sysctls(host: Host, podman: Podman) -> None:
    options = ("run", "--rm", *LIMITS, "--network", "none", "--sysctl", "net.cnihook.networks=mynet")
    outcome = podman("--runtime", CNI_RUNC, *options, IMAGE, "ip", "-4", "-o", "addr")

    assert "eth0    inet 10.22.0.2/16" in outcome.stdout


def test_configuration_file_can_trust_images(host: Host, podman: Podman, image: str) -> None:
    host.write(BOUNDS, '{"annotations": {"trustImages": true}}')
    install(host, "--trust-images")

    assert "eth0" in run(podman, image, check=True).stdout
    assert "eth0" in run(podman, image, "--runtime", CNI_RUNC, check=True).stdout
    host.write(BOUNDS, '{"annotations": {"trustImages": true, "allow": ["dns"]}}')
    outcome = run(podman, image)
    assert outcome.returncode != 0 and '"allow" in' in outcome.stderr


def test_attach_refuses_annotations_of_an_image(
    host: Host, podman: Podman, request: pytest.FixtureRequest
) -> None:
    options = ("run", "--detach", *LIMITS, "--network", "none")
    plain = podman(*options, IMAGE, *FOR_EVER).stdout.strip()
    image = request.getfixturevalue("image")  # podman also has it under the name IMAGE
    container = podman(*options, image, *FOR_EVER).stdout.strip()

    outcome = host.run(CNIHOOK, "attach", container, "--network", "mynet", "--publish", "80:80", check=False)
    assert outcome.returncode == 1 and WHY in outcome.stderr and host.listdir(RESULTS) == []
    host.run(CNIHOOK, "attach", plain, "--network", "mynet")
    host.run(CNIHOOK, "detach", plain)
    podman("rm", "--all", "--force", "--time", "0")


# Versions


def newer(host: Host, version: str, mode: int = 0o755) -> None:
    """Install a program that reports this version of podman."""
    host.write("/run/.host/newer/podman", f"#!/bin/sh\necho podman version {version}\n", mode)


def newer_first(podman: Podman) -> dict[str, str]:
    return podman.env | {"PATH": f"/run/.host/newer:{podman.env['PATH']}"}


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("4.6.0", True),
        ("5.4.2", True),
        ("10.0.0-dev", True),
        ("4.5.1", False),
        ("3.4.4", False),
        ("x", False),
    ],
)
def test_install_and_doctor_compare_versions(host: Host, podman: Podman, version: str, good: bool) -> None:
    folder = "/etc/containers/oci/hooks.d"
    newer(host, version)
    env = newer_first(podman)
    words = ("hooks.d", "install", "--dir", folder)

    outcome = host.run(CNIHOOK, *words, env=env, check=False)
    assert (outcome.returncode == 0) is good
    if not good:
        assert "--trust-images" in outcome.stderr and outcome.stderr.count("\n") == 1
    host.run(CNIHOOK, *words, "--trust-images", env=env)
    assert "image-annotations" not in host.run(CNIHOOK, "doctor", env=env, check=False).stdout
    newer(host, "4.6.0")
    host.run(CNIHOOK, *words, env=env)
    newer(host, version)
    shown = host.run(CNIHOOK, "doctor", env=env, check=False).stdout
    assert ("image-annotations" in shown) is not good
    host.run(CNIHOOK, "hooks.d", "remove", "--dir", folder)


def test_program_that_other_users_can_change_is_not_started(host: Host, podman: Podman) -> None:
    newer(host, "5.0.0", mode=0o777)
    outcome = host.run(CNIHOOK, "hooks.d", "install", "--dir", HOOKS, env=newer_first(podman), check=False)

    assert outcome.returncode == 1 and "is not known" in outcome.stderr
