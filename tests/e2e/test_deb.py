# SPDX-License-Identifier: Apache-2.0
"""The Debian packages of scripts/deb: built, checked by lintian, installed, upgraded and removed."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import cnihook
from cnihook.cli import man
from tests.support.host.hidden_programs import hide
from tests.support.host.host import Host
from tests.support.host.machine_files import changes, overlay
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, LEAVES, MYNET, Runtime, configure, make_rootfs
from tests.support.skip import need

pytestmark = [pytest.mark.xdist_group("deb"), pytest.mark.long]  # one build for all of them

PACKAGE = "/usr/lib/python3/dist-packages/cnihook"
NEWER = f"{cnihook.__version__}+1"
MAINTAINER = {"DEBFULLNAME": "A & B", "DEBEMAIL": "packages@example.org"}
# dpkg would run man-db's trigger, which reads every page of the machine.
DPKG = ("dpkg", "--no-triggers")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build the packages; return their paths, cnihook first."""
    need("dh", "dpkg-buildpackage", "lintian")
    folder = tmp_path_factory.mktemp("deb")
    build = subprocess.run(
        [CHECKOUT / "scripts/deb", folder],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | MAINTAINER,
    )
    assert build.returncode == 0, build.stderr
    assert build.stderr == "", "lintian has no tag at all"
    return sorted(map(Path, build.stdout.split()), reverse=True)


def newer(package: Path, folder: Path) -> Path:
    """Return a package with the same files, whose version is higher."""
    tree = folder / package.stem
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace(cnihook.__version__, NEWER))
    target = folder / f"{package.stem}-newer.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, target], check=True, stdout=-3
    )
    return target


def contents(package: Path) -> list[str]:
    output = subprocess.check_output(["dpkg-deb", "--contents", package], text=True)
    return [line.split()[5].removeprefix(".") for line in output.splitlines() if not line.endswith("/")]


def test_packages_have_what_an_administrator_expects(packages: list[Path]) -> None:
    for package in packages:
        field = subprocess.check_output(["dpkg-deb", "--field", package, "Maintainer"], text=True)
        assert field == f"{MAINTAINER['DEBFULLNAME']} <{MAINTAINER['DEBEMAIL']}>\n"
    main, hooks = map(contents, packages)
    programs = {"cnihook", "cni-crun", "cni-runc", "docker-run", "priv-net-run"}

    assert {path for path in main if "/bin/" in path} == {f"/usr/bin/{name}" for name in programs}
    assert len([path for path in main if path.startswith("/usr/share/man/")]) == len(man.PAGES) + 1
    units = {path.rpartition("/")[2] for path in main if "/systemd/system/" in path}
    assert units == {path.name for path in (CHECKOUT / "cnihook" / "systemd").iterdir()}
    for path in (
        "bash-completion/completions/cnihook",
        "zsh/vendor-completions/_cnihook",
        "fish/vendor_completions.d/cnihook.fish",
    ):
        assert f"/usr/share/{path}" in main
    folder = "/usr/share/containers/oci/hooks.d/90-cnihook-"
    assert {path for path in hooks if "/doc/" not in path} == {
        f"{folder}createRuntime.json",
        f"{folder}poststop.json",
    }


def test_packages_are_installed_upgraded_and_removed(
    host: Host, packages: list[Path], tmp_path: Path
) -> None:
    """No file that dpkg does not know is left, and a command writes none below /usr."""
    overlay(host, "/usr")
    hide(host, "podman")
    host.leaves(
        "dir /var/lib/dpkg*",
        "file /var/lib/dpkg/*",
        "dir /var/lib/systemd*",
        "file /var/lib/systemd*",
        *LEAVES,
    )
    before = changes(host, "/usr")

    host.run(*DPKG, "-i", *map(str, packages))
    installed = changes(host, "/usr")
    assert [path for path in installed if path.startswith(f"{PACKAGE}/__pycache__/modules.")]
    use(host, tmp_path)
    assert changes(host, "/usr") == installed, "a command has written below /usr"

    host.run(*DPKG, "-i", *(str(newer(package, tmp_path)) for package in packages))
    assert changes(host, "/usr").keys() == installed.keys()
    assert host.run("dpkg-query", "-W", "-f", "${Version}", "cnihook").stdout == NEWER
    assert json.loads(host.run("cnihook", "ps", "--json").stdout) == []

    container = host.container("web", process=True)
    host.run("cnihook", "add", "mynet", str(container.pid), "--container-id", "web")
    removal = host.run(*DPKG, "--purge", "cnihook-hooks", "cnihook")
    assert "cnihook: on record: web; without cnihook" in removal.stderr
    host.run(CNIHOOK, "detach", "web")
    assert changes(host, "/usr") == before


def use(host: Host, tmp_path: Path) -> None:
    """Run the commands, and a container whose hook is the package's."""
    configure(host, MYNET)
    assert host.run("cnihook", "--version").stdout == f"cnihook {cnihook.__version__}\n"
    for command in ("list", "doctor", "ps", "gc"):
        host.run("cnihook", command)
    host.run("priv-net-run", "true")
    refused = host.run("cnihook", "install", check=False)
    assert refused.returncode == 1 and "apt-get install cnihook-hooks" in refused.stderr

    runtime = Runtime(host, "runc", make_rootfs(tmp_path / "rootfs"))
    bundle = runtime.bundle("c1", hooks={})
    config = json.loads((bundle / "config.json").read_text())
    entries = {}
    for stage in ("createRuntime", "poststop"):
        text = host.read(f"/usr/share/containers/oci/hooks.d/90-cnihook-{stage}.json")
        entries[stage] = [json.loads(text)["hook"]]
        assert entries[stage][0]["args"][2] == f"{PACKAGE}/__main__.py"
    (bundle / "config.json").write_text(json.dumps(config | {"hooks": entries}))
    container = runtime.started("c1", runtime.start("c1"))
    assert container.addresses("eth0")[0].startswith("10.22.0.")
    runtime.delete("c1")
    runtime.close()
