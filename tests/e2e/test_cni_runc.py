# SPDX-License-Identifier: Apache-2.0
"""cni-runc: a runtime that differs from the one behind it in one thing alone.

The one behind it is real where a container runs, and elsewhere a stand-in that notes how it was started.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.cni import CHECKOUT
from tests.support.host import Host
from tests.support.oci import LEAVES, MYNET, RESULTS, Runtime, configure, leases

CNI_RUNC = str(CHECKOUT / "scripts" / "cni-runc")

# All that a program can see of how it was started.  Signals by the shell itself, which blocks some while it
# waits for others; the descriptor that it has open for its script is its own.
STAND_IN = """\
#!/bin/bash
{
  while read -r line; do case $line in Sig[BI]*) echo "$line" ;; esac; done < /proc/self/status
  printf 'process %s\\n' $$
  printf 'argument %s\\n' "$@"
  printf 'folder %s\\n' "$PWD"
  printf 'umask %s\\n' "$(umask)"
  tr '\\0' '\\n' < /proc/$$/environ | sort
  cd /proc/$$/fd
  for fd in *; do [ $fd -gt 200 ] || printf '%s %s\\n' $fd "$(readlink $fd | sed 's/[0-9]*//g')"; done
} > /run/.host/seen 200>&-
cat
exit 7
"""


@pytest.fixture
def stand_in(host: Host) -> dict[str, str]:
    """The environment in which `runc` and `crun` are stand-ins."""
    for name in ("runc", "crun"):
        host.write(f"/run/.host/bin/{name}", STAND_IN, 0o755)
    return {"PATH": "/run/.host/bin:/usr/bin:/bin", "ODD": "a\nb=c", "EMPTY": ""}


def seen(host: Host) -> list[str]:
    """And the process is the one that start() made."""
    lines = host.read("/run/.host/seen").splitlines()
    (host.root / "run/.host/seen").unlink()
    process = f"process {host.read('/run/.host/pid').strip()}"
    lines.remove(process)
    return lines


def start(host: Host, env: dict[str, str], *argv: str, cwd: str = "/") -> tuple[int, str, str]:
    """With a descriptor beyond the three, as `--preserve-fds` has, a signal ignored, and a umask."""
    script = 'echo $$ > /run/.host/pid; trap "" USR1; umask 002; exec 5< /etc/hostname; exec "$@"'
    done = host.run("bash", "-c", script, "bash", *argv, env=env, cwd=cwd, check=False, input="from stdin")
    return done.returncode, done.stdout, done.stderr


LINES = [
    "",
    "--version",
    "--help",
    "features",
    "state c1",
    "--root /r --log /run/.host/log --log-format json state c1",
    "kill c1 KILL",
    "delete --force c1",
    "exec --process /p c1",
    "start c1",
    "list --format json",
    "ps c1",
    "pause c1",
    "update --resources - c1",
    "checkpoint --bundle /b c1",
    "events c1",
    "no-such-command --bundle=/b create",
    "create",
    "create --bundle /nowhere c1",
    "run c1",
    "restore c1",
]


@pytest.mark.parametrize("line", LINES)
def test_what_makes_no_container_of_ours_reaches_the_runtime_as_it_is(
    host: Host, stand_in: dict[str, str], line: str
) -> None:
    """Arguments, environment, folder, umask, signals, descriptors, process, exit code; kill and delete above
    all, for a wrapper that fails there leaves containers that nobody can end.
    """
    words = line.split()
    bare = start(host, stand_in, "/run/.host/bin/runc", *words, cwd="/tmp")
    by_itself = seen(host)
    wrapped = start(host, stand_in, CNI_RUNC, *words, cwd="/tmp")

    assert seen(host) == by_itself
    assert wrapped == bare == (7, "from stdin", "")


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_its_name_says_which_runtime_it_becomes(host: Host, name: str) -> None:
    host.leaves(*LEAVES)
    said = host.run(str(CHECKOUT / "scripts" / f"cni-{name}"), "--version").stdout

    assert said == host.run(name, "--version").stdout


def test_a_runtime_that_is_not_there_is_told(host: Host, tmp_path: Path) -> None:
    """To the engine as well, in the file where it looks for the runtime's messages."""
    script = 'mount --bind /dev/null /usr/sbin/runc; mount --bind /dev/null /usr/bin/crun; exec "$@"'
    log = tmp_path / "log"
    shell = ("unshare", "--mount", "sh", "-c", script, "sh")
    argv = (CNI_RUNC, f"--log={log}", "--log-format", "json", "state", "c1")
    host.leaves("dir /run/mount")
    done = host.run(*shell, *argv, check=False)

    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("cni-runc: there is no runc")
    assert json.loads(log.read_text())["msg"] == done.stderr.rstrip()


# config.json


def config(**keys: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {"args": ["sh"], "env": ["PATH=/bin", "A=b"], "future": 1.10},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}], "unknown": {"x": 10**30}},
        "annotations": {"cnihook.networks": "mynet"},
    }
    return made | keys


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    return folder


def written(bundle: Path, value: dict[str, Any]) -> str:
    text = json.dumps(value)
    (bundle / "config.json").write_text(text)
    return text


def read(bundle: Path) -> Any:
    return json.loads((bundle / "config.json").read_text())


FORMS = ["create -b {} c1", "create --bundle {} c1", "--root /r create -b={} c1", "run --bundle={} c1"]


@pytest.mark.parametrize("form", [*FORMS, "restore --image-path /i --bundle {} c1", "create c1"])
def test_a_container_that_asks_gets_the_hook(
    host: Host, stand_in: dict[str, str], bundle: Path, form: str
) -> None:
    """However the engine names the bundle; the arguments reach the runtime as they were."""
    before = config(annotations={"cnihook.networks": "mynet", "other": "x"})
    written(bundle, before)
    (bundle / "config.json").chmod(0o600)
    words = form.format(bundle).split()

    assert start(host, stand_in, CNI_RUNC, *words, cwd=str(bundle))[0] == 7
    assert [line[9:] for line in seen(host) if line.startswith("argument ")] == words
    after = read(bundle)
    hooks = after.pop("hooks")
    assert after == before
    assert [hooks[stage][0]["args"][-1] for stage in hooks] == ["createRuntime", "poststop"]
    assert stat.S_IMODE((bundle / "config.json").stat().st_mode) == 0o600
    assert os.listdir(bundle) == ["config.json"]

    start(host, stand_in, CNI_RUNC, *words, cwd=str(bundle))
    assert read(bundle)["hooks"] == hooks, "once is enough"


@pytest.mark.parametrize(
    "keys",
    [
        {"annotations": {"org.example": "cnihook.networks"}},
        {"annotations": None},
        {"linux": {"namespaces": [{"type": "pid"}]}},
        {"linux": {"namespaces": [{"type": "network", "path": "/run/netns/pod"}]}},
        {"linux": None},
    ],
    ids=["another", "none", "host", "joined", "nothing"],
)
def test_a_container_that_does_not_ask_or_has_no_network_of_its_own_is_left_alone(
    host: Host, stand_in: dict[str, str], bundle: Path, keys: dict[str, Any]
) -> None:
    """So that it can be the engine's default runtime."""
    before = written(bundle, config(**keys))

    assert start(host, stand_in, CNI_RUNC, "create", "-b", str(bundle), "c1") == (7, "from stdin", "")
    assert (bundle / "config.json").read_text() == before


def test_what_is_no_config_is_the_runtimes_to_refuse(
    host: Host, stand_in: dict[str, str], bundle: Path
) -> None:
    (bundle / "config.json").write_text("{")

    assert start(host, stand_in, CNI_RUNC, "create", "-b", str(bundle), "c1") == (7, "from stdin", "")
    assert (bundle / "config.json").read_text() == "{"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_container_that_cannot_get_the_hook_is_not_made(
    host: Host, stand_in: dict[str, str], bundle: Path, log_format: str
) -> None:
    """It would run without the networks that it asks for.  The engine shows what is in its log."""
    before = written(bundle, config(hooks={"createRuntime": "none"}))
    log = ("--log", "/run/.host/log", "--log-format", log_format)

    status, stdout, stderr = start(host, stand_in, CNI_RUNC, *log, "create", "-b", str(bundle), "c1")

    assert (status, stdout) == (1, "") and not host.exists("/run/.host/seen")
    assert stderr == "cni-runc: hooks.createRuntime must be a list\n"
    (line,) = host.read("/run/.host/log").splitlines()
    if log_format == "json":
        message = json.loads(line)
        assert (message["level"], message["msg"]) == ("error", stderr.rstrip())
    else:
        assert 'level=error msg="cni-runc: hooks.createRuntime must be a list"' in line
    assert (bundle / "config.json").read_text() == before


# Docker's way to ask


def test_sysctls_of_ours_become_annotations(host: Host, stand_in: dict[str, str], bundle: Path) -> None:
    """Their values are whole: commas, spaces and equals signs are the vocabulary's."""
    asking = {"net.cnihook.networks": "mynet:ifname=eth3,ip=10.22.0.9 b", "net.cnihook.publish": "80:80"}
    others = {"net.ipv4.ip_forward": "1", "net.cnihooks": "x"}
    written(bundle, config(annotations=None, linux=config()["linux"] | {"sysctl": asking | others}))

    assert start(host, stand_in, CNI_RUNC, "create", "-b", str(bundle), "c1")[0] == 7
    after = read(bundle)
    assert after["linux"]["sysctl"] == others
    assert after["annotations"] == {name.removeprefix("net."): text for name, text in asking.items()}
    assert len(after["hooks"]) == 2


def test_an_image_cannot_ask_for_networks(host: Host, stand_in: dict[str, str], bundle: Path) -> None:
    """Its variables are its maker's, and mean nothing, whatever their names."""
    forged = ["cnihook.networks=mynet", "net.cnihook.networks=mynet", "CNIHOOK_WANTS=mynet"]
    before = written(bundle, config(annotations=None, process={"env": forged}))

    assert start(host, stand_in, CNI_RUNC, "create", "-b", str(bundle), "c1") == (7, "from stdin", "")
    assert (bundle / "config.json").read_text() == before


# With real runtimes


@pytest.fixture
def wrapped(runtime: Runtime) -> Runtime:
    runtime.program = str(CHECKOUT / "scripts" / f"cni-{runtime.name}")
    return runtime


ASKING: dict[str, Any] = {"hooks": {}, "annotations": {"cnihook.networks": "mynet"}}


def test_the_network_is_there_and_goes_again(host: Host, wrapped: Runtime) -> None:
    configure(host, MYNET)
    folder = wrapped.bundle("c1", command=("ip", "-4", "-o", "addr"), **ASKING)

    shown = wrapped.call("run", "--bundle", str(folder), "c1").stdout

    assert "eth0    inet 10.22.0.2/16" in shown
    assert leases(host) == host.listdir(RESULTS) == []


def test_a_container_is_as_another_to_its_runtime(host: Host, wrapped: Runtime) -> None:
    configure(host, MYNET)
    container = wrapped.create("c1", **ASKING)

    assert leases(host) == ["10.22.0.2"]
    wrapped.call("start", "c1")
    assert "inet 10.22.0.2/16" in container.exec("ip", "-o", "addr")
    assert wrapped.state("c1") == json.loads(host.run(wrapped.name, "state", "c1").stdout)
    wrapped.delete("c1")
    assert leases(host) == host.listdir(RESULTS) == []
