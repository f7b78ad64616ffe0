# SPDX-License-Identifier: Apache-2.0
"""What holds for every command, on a machine in whatever state; what each does is tested elsewhere."""

import json
import subprocess

import pytest

from cnihook.cli import main
from cnihook.cli.main import COMMANDS, HOOK
from tests.support.host import Host
from tests.support.oci import MYNET, NETWORKS, RESULTS, bridge, configure
from tests.support.seeing import INSTALLED, damage, on_screen, plain

# Words that make sense; those of a new command have to be added here.
WORDS = {
    "createRuntime": "",
    "poststop": "",
    "inject": "/run/.host/bundle",
    "hooks.d": "install --dir /run/.host/hooks.d",
    "attach": "web",
    "detach": "web",
    "gc": "",
    "ps": "",
    "inspect": "web",
    "graph": "",
    "stats": "--once",
    "repair": "--all",
    "doctor": "",
    "metrics": "",
    "logs": "",
    "add": "mynet web",
    "del": "mynet web",
    "check": "--all",
    "status": "mynet",
    "list": "",
    "validate": "",
    "plan": "mynet",
    "install-plugins": "/run/.host/plugins",
    "new-plugin": "--dir /run/.host/own own",
    "conformance": "--list",
    "dhcp-keeper": "--linger 0.01",
    "completion": "bash",
    "man": "ps",
}
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
STATE = json.dumps({"ociVersion": "1.0.2", "id": "web", "pid": 1, "status": "creating", "bundle": "/"})
LEAVES = [
    *("dir /var/lib/cnihook", "file /var/lib/cnihook/key", f"dir {NETWORKS}/*", f"file {NETWORKS}/*"),
    *("file /run/cnihook/log/web", "dir /run/runc", "dir /run/crun", "dir /run/cni"),
]
FOR_EVERYBODY = {"plan", "conformance", "completion", "man", "logs", "status"}
TELLS_OF_THE_FILE = {"list", "validate"}


def test_every_command_is_looked_at() -> None:
    assert list(WORDS) == list(COMMANDS)


def call(
    host: Host, *words: str, as_user: tuple[str, ...] = (), input: str = STATE
) -> "subprocess.CompletedProcess[str]":
    """The exit code is one of three, and what fails says why, in lines that are ours."""
    done = host.run(*as_user, INSTALLED, *words, input=input, check=False)
    assert done.returncode in (0, 1, 2), done
    assert all(line.startswith("cnihook: ") for line in done.stderr.splitlines()), done.stderr
    assert done.stderr or done.stdout or done.returncode == 0, done
    return done


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in HOOK])
def test_words_too_many_are_refused(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In one line; what no option is called is tested in test_commands.py."""
    if command in ("validate", "conformance"):
        return  # these take any number of files
    with pytest.raises(SystemExit) as ended:
        main.load(command).parser().parse_args([*WORDS[command].split(), "x", "y", "z"])

    told = capfd.readouterr()
    assert (ended.value.code, told.out, told.err.count("\n")) == (2, "", 1), told
    assert told.err.startswith(f"cnihook: {command}: ") and f"`cnihook {command} --help`" in told.err


@pytest.mark.parametrize("command", COMMANDS)
def test_no_machine_is_too_empty(host: Host, command: str) -> None:
    """Neither network nor container nor record; without words, and with some."""
    host.leaves(*LEAVES)
    if command != "dhcp-keeper":  # that one would stay for a while
        call(host, command, input="")

    if WORDS[command] or command in HOOK:
        call(host, command, *WORDS[command].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_damaged_files_are_told_at_most(host: Host, command: str) -> None:
    """A record, a lease and a configuration that end in the middle, as a crash of the machine leaves them.

    And who may not look is told, too; who does not read what is printed, is not.
    """
    configure(host, bridge("mynet", "10.22.0.0/24"), **{"20-cut.conflist": '{"name": '})
    host.write(f"{NETWORKS}/mynet/10.22.0.9", "")
    host.leaves(*LEAVES)
    path = damage(host)

    done = call(host, command, *WORDS[command].split())
    if command != "gc":  # which releases it
        assert host.read(path) == "{"
    if command in ("ps", "stats", "check", "doctor"):
        assert path in done.stdout + done.stderr

    host.run("chmod", "700", RESULTS)
    host.run("chmod", "755", "/run", "/var/lib/cni")
    done = call(host, command, *WORDS[command].split(), as_user=NOBODY)
    assert (done.returncode == 0) is (command in FOR_EVERYBODY) or command in TELLS_OF_THE_FILE, done

    unread = host.run("sh", "-c", f"{INSTALLED} {command} {WORDS[command]} | true", input=STATE)
    assert all(line.startswith("cnihook: ") for line in unread.stderr.splitlines()), unread.stderr


# The exit code of each.
OUTPUTS = {"--help": 1, "--version": 1, "list": 1, "ps --help": 1, "list --nothing": 2}


@pytest.mark.parametrize("words", OUTPUTS)
def test_a_full_disk_is_told(host: Host, words: str) -> None:
    configure(host, MYNET)
    done = host.run("sh", "-c", f"exec {INSTALLED} {words} > /dev/full", check=False)

    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cnihook: {words.split()[0]}: ")
    assert ("No space left on device" in line) is (OUTPUTS[words] == 1)
    assert done.returncode == OUTPUTS[words]


@pytest.mark.parametrize("words", OUTPUTS)
def test_a_reader_that_is_gone_is_not(host: Host, words: str) -> None:
    configure(host, MYNET)
    script = f"{{ sleep 0.1; {INSTALLED} {words}; echo $? >&2; }} | true"

    lines = host.run("sh", "-c", script, check=False).stderr.splitlines()

    assert lines.pop() == str(OUTPUTS[words])
    assert len(lines) == OUTPUTS[words] - 1  # of wrong words


@pytest.mark.parametrize("words", [*OUTPUTS, "ps", "inspect c1"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_stream_is_as_one_to_nowhere(host: Host, words: str, number: int) -> None:
    configure(host, MYNET)

    def told(where: str) -> tuple[int, str, str]:
        done = host.run("sh", "-c", f"exec {INSTALLED} {words} {number}>{where}", check=False)
        return done.returncode, done.stdout, done.stderr

    assert told("&-") == told("/dev/null")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in HOOK])
def test_help_keeps_to_a_narrow_terminal(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prose and options do; an example, a heading and what cannot be broken may be longer."""
    monkeypatch.setenv("COLUMNS", "40")
    lines = main.load(command).parser().format_help().splitlines()

    assert [line for line in lines if len(line) > 40 and not line.startswith(" ") and line[-1] != ":"] == []


def test_output_keeps_to_a_narrow_terminal(host: Host) -> None:
    """Of tables without anything in them; with containers, test_seeing.py looks at the same."""
    for command in ("ps", "stats", "graph"):
        lines = plain(on_screen(host, 40, command, *WORDS[command].split())).splitlines()
        assert max(map(len, lines), default=0) <= 40
