# SPDX-License-Identifier: Apache-2.0
"""cni-runc: a wrapper that adds the hook and otherwise behaves like the runtime behind it.

Tests that run a container use a real runtime; the others use a stand-in that records how it was started.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import LEAVES, MYNET, RESULTS, Runtime, configure, leases

CNI_RUNC = str(CHECKOUT / "scripts" / "cni-runc")
POD = {"cnihook.networks": "mynet", "io.kubernetes.cri.container-type": "container"}

# Records all that a program can see of how it was started.  The shell itself reads the signal masks, because
# it blocks some signals while it waits for a child.  Its descriptor for the script is left out.
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
    """Return the environment in which `runc` and `crun` are stand-ins."""
    for name in ("runc", "crun"):
        host.write(f"/run/.host/bin/{name}", STAND_IN, 0o755)
    return {"PATH": "/run/.host/bin:/usr/bin:/bin", "ODD": "a\nb=c", "EMPTY": ""}


def seen(host: Host) -> list[str]:
    """Return what the stand-in recorded; its PID must be that of the process of start()."""
    lines = host.read("/run/.host/seen").splitlines()
    (host.root / "run/.host/seen").unlink()
    process = f"process {host.read('/run/.host/pid').strip()}"
    lines.remove(process)
    return lines


def start(host: Host, env: dict[str, str], *argv: str, cwd: str = "/") -> tuple[int, str, str]:
    """Run `argv` with an open descriptor 5 (as with `--preserve-fds`), an ignored signal and a umask."""
    script = 'echo $$ > /run/.host/pid; trap "" USR1; umask 002; exec 5< /etc/hostname; exec "$@"'
    result = host.run("bash", "-c", script, "bash", *argv, env=env, cwd=cwd, check=False, input="from stdin")
    return result.returncode, result.stdout, result.stderr


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
def test_other_commands_are_passed_through_unchanged(
    host: Host, stand_in: dict[str, str], line: str
) -> None:
    """Compare arguments, environment, folder, umask, signals, descriptors, process and exit code.

    kill and delete matter most: if the wrapper failed there, no container could be ended.
    """
    words = line.split()
    bare = start(host, stand_in, "/run/.host/bin/runc", *words, cwd="/tmp")
    by_itself = seen(host)
    wrapped = start(host, stand_in, CNI_RUNC, *words, cwd="/tmp")

    assert seen(host) == by_itself
    assert wrapped == bare == (7, "from stdin", "")


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_name_of_the_wrapper_selects_the_runtime(host: Host, name: str) -> None:
    host.leaves(*LEAVES)
    version = host.run(str(CHECKOUT / "scripts" / f"cni-{name}"), "--version").stdout

    assert version == host.run(name, "--version").stdout


def test_missing_runtime_is_reported(host: Host, tmp_path: Path) -> None:
    """The engine gets the message too, in the file where it looks for the runtime's messages."""
    script = 'mount --bind /dev/null /usr/sbin/runc; mount --bind /dev/null /usr/bin/crun; exec "$@"'
    log = tmp_path / "log"
    shell = ("unshare", "--mount", "sh", "-c", script, "sh")
    argv = (CNI_RUNC, f"--log={log}", "--log-format", "json", "state", "c1")
    host.leaves("dir /run/mount")
    result = host.run(*shell, *argv, check=False)

    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("cni-runc: there is no runc")
    assert json.loads(log.read_text())["msg"] == result.stderr.rstrip()


# config.json


def config(**keys: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {"args": ["sh"], "env": ["PATH=/bin", "A=b"], "future": 1.10},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}], "unknown": {"x": 10**30}},
        "annotations": {"cnihook.networks": "mynet"},
    }
    return config | keys


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
def test_container_that_requests_networks_gets_the_hook(
    host: Host, stand_in: dict[str, str], bundle: Path, form: str
) -> None:
    """Every way to name the bundle works, and the runtime gets the arguments unchanged."""
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
    assert read(bundle)["hooks"] == hooks, "the hook is added once"


@pytest.mark.parametrize(
    "keys",
    [
        {"annotations": {"org.example": "cnihook.networks"}},
        {"annotations": None},
        {"linux": {"namespaces": [{"type": "pid"}]}, "annotations": {}},
        {"linux": {"namespaces": [{"type": "network", "path": "/run/netns/pod"}]}, "annotations": {}},
        {"linux": {"namespaces": [{"type": "network", "path": "/run/netns/pod"}]}, "annotations": POD},
        {"linux": None, "annotations": POD},
    ],
    ids=["another", "none", "host", "joined", "pod", "nothing"],
)
def test_container_without_request_or_of_a_pod_is_unchanged(
    host: Host, stand_in: dict[str, str], bundle: Path, keys: dict[str, Any]
) -> None:
    """So cni-runc can be the engine's default runtime."""
    before = written(bundle, config(**keys))

    assert start(host, stand_in, CNI_RUNC, "create", "-b", str(bundle), "c1") == (7, "from stdin", "")
    assert (bundle / "config.json").read_text() == before


@pytest.mark.parametrize("namespace", [{"type": "network", "path": "/run/netns/x"}, {"type": "pid"}])
def test_request_without_own_network_reaches_the_hook(
    host: Host, stand_in: dict[str, str], bundle: Path, namespace: dict[str, str]
) -> None:
    """The hook attaches a container that joins a namespace, and rejects one in the host's."""
    written(bundle, config(linux={"namespaces": [namespace]}))

    start(host, stand_in, CNI_RUNC, "create", "-b", str(bundle), "c1")
    assert list(read(bundle)["hooks"]) == ["createRuntime", "poststop"]


def test_malformed_config_is_left_to_the_runtime(host: Host, stand_in: dict[str, str], bundle: Path) -> None:
    (bundle / "config.json").write_text("{")

    assert start(host, stand_in, CNI_RUNC, "create", "-b", str(bundle), "c1") == (7, "from stdin", "")
    assert (bundle / "config.json").read_text() == "{"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_container_that_cannot_get_the_hook_is_not_created(
    host: Host, stand_in: dict[str, str], bundle: Path, log_format: str
) -> None:
    """Otherwise it would run without its networks.  The engine shows the message in its log."""
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


# Requests by sysctl, for docker


def test_cnihook_sysctls_become_annotations(host: Host, stand_in: dict[str, str], bundle: Path) -> None:
    """Their values are kept whole, with commas, spaces and equals signs."""
    asking = {"net.cnihook.networks": "mynet:ifname=eth3,ip=10.22.0.9 b", "net.cnihook.publish": "80:80"}
    others = {"net.ipv4.ip_forward": "1", "net.cnihooks": "x"}
    written(bundle, config(annotations=None, linux=config()["linux"] | {"sysctl": asking | others}))

    assert start(host, stand_in, CNI_RUNC, "create", "-b", str(bundle), "c1")[0] == 7
    after = read(bundle)
    assert after["linux"]["sysctl"] == others
    assert after["annotations"] == {name.removeprefix("net."): text for name, text in asking.items()}
    assert len(after["hooks"]) == 2


def test_image_cannot_request_networks(host: Host, stand_in: dict[str, str], bundle: Path) -> None:
    """An image's author chooses its variables, so none of them counts as a request."""
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


def test_network_is_up_during_run_and_released_after(host: Host, wrapped: Runtime) -> None:
    configure(host, MYNET)
    folder = wrapped.bundle("c1", command=("ip", "-4", "-o", "addr"), **ASKING)

    shown = wrapped.call("run", "--bundle", str(folder), "c1").stdout

    assert "eth0    inet 10.22.0.2/16" in shown
    assert leases(host) == host.listdir(RESULTS) == []


def test_runtime_commands_work_on_a_wrapped_container(host: Host, wrapped: Runtime) -> None:
    configure(host, MYNET)
    container = wrapped.create("c1", **ASKING)

    assert leases(host) == ["10.22.0.2"]
    wrapped.call("start", "c1")
    assert "inet 10.22.0.2/16" in container.exec("ip", "-o", "addr")
    assert wrapped.state("c1") == json.loads(host.run(wrapped.name, "state", "c1").stdout)
    wrapped.delete("c1")
    assert leases(host) == host.listdir(RESULTS) == []
