# SPDX-License-Identifier: Apache-2.0
"""cnihook's runtime of a docker daemon is recognized, and docker gets the options for it."""

import json
from pathlib import Path

import pytest

from cnihook.cli.docker import runtime
from cnihook.cli.docker.pause import Docker
from cnihook.cli.docker.plan import Plan
from tests.support.plugins.cni import CHECKOUT

PIPS = """\
#!/opt/venv/bin/python3
import sys
from cnihook.cli.cni_runc import main
if __name__ == '__main__':
    sys.exit(main())
"""


class Daemon(Docker):
    """A daemon that only lists these runtimes."""

    def __init__(self, runtimes: object) -> None:
        self.runtimes = runtimes

    def __call__(self, *words: str, stdin: bytes = b"") -> str:
        assert words == ("info", "--format", "{{json .Runtimes}}")
        return json.dumps(self.runtimes)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, text in (("cni-crun", PIPS), ("runc", "\x7fELF"), ("mine", "#!/bin/sh\nexec cni-runc")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return Daemon(
        {
            "a": {"path": str(tmp_path / "gone")},
            "b": {"path": str(tmp_path / "mine")},
            "io.containerd.runc.v2": {"path": "runc"},
            "kata": {"runtimeType": "io.containerd.kata.v2"},
            "odd": None,
            "p": {"path": "cni-crun"},
            "z": {"path": str(CHECKOUT / "scripts" / "cni-runc")},
        }
    )


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("", "p"), ("z", "z"), ("p", "p"), ("b", ""), ("kata", ""), ("odd", ""), ("none-such", "")],
)
def test_runtime_of_cnihook_is_recognized_by_what_its_file_starts(
    daemon: Daemon, wanted: str, name: str
) -> None:
    """A checkout's or pip's file counts under any name; if the user names a runtime, only that one does."""
    assert runtime.find(daemon, wanted) == name


def test_daemon_without_runtimes() -> None:
    assert runtime.find(Daemon(None), "") == runtime.find(Daemon({}), "x") == ""


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("-d IMAGE sh", "--network=none --runtime=cni --sysctl net.cnihook.publish= -d IMAGE sh"),
        (
            "-h web --net a --ip 10.0.0.9 -p80:80 -p81:81 --runtime other IMAGE",
            "--network=none --sysctl net.cnihook.networks=a:ip=10.0.0.9"
            " --sysctl net.cnihook.publish=80:80,81:81 -h web --runtime other IMAGE",
        ),
        (
            "--no-default-route --dns-opt ndots:2 IMAGE --dns x",
            "--network=none --runtime=cni --sysctl net.cnihook.no-default-route=true"
            " --sysctl net.cnihook.dns-option=ndots:2 IMAGE --dns x",
        ),
        (
            "--mdns --mdns=eth0,wlan0 IMAGE --mdns",
            "--network=none --runtime=cni --sysctl net.cnihook.mdns=eth0,wlan0 IMAGE --mdns",
        ),
        (
            "--no-default-route=false -p 80 IMAGE",
            "--network=none --runtime=cni --sysctl net.cnihook.publish=80 IMAGE",
        ),
    ],
)
def test_docker_gets_the_request_as_sysctls(words: str, arguments: str) -> None:
    assert runtime.command("cni", Plan(words.split())) == ["docker", "run", *arguments.split()]
