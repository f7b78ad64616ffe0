# SPDX-License-Identifier: Apache-2.0
"""Rules for every command, on an empty or damaged machine; what each command does is tested elsewhere."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import cnihook
from cnihook.cli import main
from cnihook.cli.main import COMMANDS, HOOK
from tests.support.commands.listings import INSTALLED, damage, on_screen, plain
from tests.support.host.host import Host
from tests.support.runtimes.oci import MYNET, NETWORKS, RESULTS, bridge, configure

# Valid arguments; add those of a new command here.
WORDS = {
    "createRuntime": "",
    "poststop": "",
    "inject": "/run/.host/bundle",
    "hooks.d": "install --dir /run/.host/hooks.d",
    "attach": "web",
    "detach": "web",
    "connect": "mynet web",
    "disconnect": "mynet web",
    "publish": "web 8080:80",
    "unpublish": "web 8080",
    "update": "web --publish-add 8080:80",
    "diff": "",
    "apply": "",
    "gc": "",
    "ps": "",
    "port": "web",
    "inspect": "web",
    "graph": "",
    "stats": "--once",
    "repair": "--all",
    "policy": "list",
    "denied": "",
    "doctor": "",
    "metrics": "",
    "logs": "",
    "add": "mynet web",
    "del": "mynet web",
    "check": "--all",
    "status": "mynet",
    "network": "ls",
    "sticky": "ls",
    "cluster": "status",
    "agent": "",
    "list": "",
    "validate": "",
    "schema": "bridge",
    "plan": "mynet",
    "compile": "",
    "install-plugins": "/run/.host/plugins",
    "install": "--prefix /run/.host/usr --with man",
    "uninstall": "--prefix /run/.host/usr",
    "new-plugin": "--dir /run/.host/own own",
    "conformance": "--list",
    "dhcp-keeper": "--linger 0.01",
    "dns-keeper": "--linger 0.01",
    "mdns-keeper": "--linger 0.01",
    "completion": "bash",
    "man": "ps",
}
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
STATE = json.dumps({"ociVersion": "1.0.2", "id": "web", "pid": 1, "status": "creating", "bundle": "/"})
LEAVES = [
    *("dir /var/lib/cnihook", "file /var/lib/cnihook/key", f"dir {NETWORKS}/*", f"file {NETWORKS}/*"),
    *("file /run/cnihook/log/web", "dir /run/runc", "dir /run/crun", "dir /run/cni"),
    *("dir /run/cnihook/resolver", "dir /run/cnihook/mdns"),
]
WITHOUT_ROOT = {"plan", "conformance", "completion", "man", "logs", "schema", "status", "sticky"} | {
    "install",  # it is done
    "cluster",  # there is no network
}
REPORTS_THE_FILE = {"list", "validate"}


def test_every_command_is_tested() -> None:
    assert list(WORDS) == list(COMMANDS)


def call(
    host: Host, *words: str, as_user: tuple[str, ...] = (), input: str = STATE, fork: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run cnihook; it must exit with 0, 1 or 2, and each line on stderr must begin with "cnihook: "."""
    result = host.run(*as_user, INSTALLED, *words, input=input, check=False, fork=fork)
    assert result.returncode in (0, 1, 2), result
    assert all(line.startswith("cnihook: ") for line in result.stderr.splitlines()), result.stderr
    assert result.stderr or result.stdout or result.returncode == 0, result
    return result


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in HOOK])
def test_extra_arguments_are_refused(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The error is one line.  test_commands.py tests unknown options."""
    if command in ("validate", "conformance", "ps"):
        return  # these take any number of arguments
    with pytest.raises(SystemExit) as ended:
        main.load(command).parser().parse_args([*WORDS[command].split(), "x", "y", "z"])

    output = capfd.readouterr()
    assert (ended.value.code, output.out, output.err.count("\n")) == (2, "", 1), output
    assert output.err.startswith(f"cnihook: {command}: ") and f"`cnihook {command} --help`" in output.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_a_command_in_either_order(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    texts = []
    for words in (["help", command], [command, "--help"]):
        assert main.run(words) == 0
        texts.append(capfd.readouterr().out)
    assert (
        texts[0] == texts[1]
        and f"usage: cnihook {'createRuntime' if command in HOOK else command}" in texts[0]
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("pss", "no command 'pss'; did you mean ps? see `cnihook --help`"),
        ("help stauts", "no command 'stauts'; did you mean stats or status? see `cnihook --help`"),
        ("nosuch", "no command 'nosuch'; there are: createRuntime, poststop, inject"),
        ("ps --jsno", "ps: unrecognized arguments: --jsno; did you mean --json? see `cnihook ps --help`"),
        ("attach web --netwrok=a", "did you mean --network? see"),
        ("graph --format jsn", "argument --format: no 'jsn'; did you mean json? see"),
        ("ps --sort netwrk", "argument --sort: no 'netwrk'; did you mean network? see"),
        ("man trubleshooting", "no page 'trubleshooting'; did you mean troubleshooting? see"),
        ("schema brigde", "no plugin 'brigde'; did you mean bridge"),
        ("install-plugins /x --plugin portmp", "no built-in plugin 'portmp'; did you mean portmap? see"),
        ("hooks.d", "the following arguments are required: install|remove; see"),
        ("completion", "one of the arguments bash|zsh|fish --complete is required; see"),
        ("completion bahs", "no 'bahs'; did you mean bash? see"),
        ("add", "NETWORK is missing; `cnihook list` shows the networks; see `cnihook add --help`"),
        ("del mynet", "NETNS is missing: a path, a name of `ip netns`, or the ID of a process; see"),
        ("check", "NETWORK is missing"),
        ("status", "NETWORK is missing"),
        ("plan", "NETWORK is missing"),
        ("gc --all", "--keep and --all need a NETWORK"),
        ("repair", "one of the arguments"),
        *(
            (command, "arguments are required: ")
            for command in ("inject", "attach", "detach", "port", "inspect")
        ),
        *((command, "arguments are required: ") for command in ("install-plugins", "new-plugin")),
    ],
)
def test_usage_error_names_what_was_meant(words: str, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(words.split()) == 2
    output = capfd.readouterr()
    assert text in output.err and (output.out, output.err.count("\n")) == ("", 1)


def test_misspelled_network_is_answered_with_the_nearest(host: Host) -> None:
    """The error has its traceback with CNIHOOK_DEBUG.  All programs print their version."""
    configure(host, MYNET)
    for words in ("plan mynt", "status mynt", "add mynt x", "ps --network mynt"):
        outcome = call(host, *words.split())
        assert outcome.returncode == 1 and outcome.stderr.endswith("; did you mean mynet?\n")
    debug = host.run("env", "CNIHOOK_DEBUG=1", INSTALLED, "plan", "mynt", check=False)
    assert debug.returncode == 1 and "Traceback" in debug.stderr
    for program in ("priv-net-run", "docker-run", "cnihook"):
        version = host.run(str(Path(INSTALLED).with_name(program)), "--version").stdout
        assert version == f"{program} {cnihook.__version__}\n"


def test_silent_commands_print_a_line_on_a_terminal(host: Host) -> None:
    """Programs rely on their silence, so there is none in a pipe.  --verbose prints times on stderr."""
    configure(host, bridge("mynet", "10.22.0.0/24"))
    host.container("web")
    attach = ("add", "mynet", "web", "--container-id", "web", "--verbose")
    steps = host.run(INSTALLED, *attach).stderr.splitlines()
    assert any(re.fullmatch(r"cnihook: add mynet: \d+\.\d\d ms: ADD bridge", line) for line in steps)
    assert steps[-1].endswith(" ms in total")
    for words, text in {
        "status mynet": "mynet is ready",
        "check mynet web --container-id web": "nothing differs from what was set up",
        "repair --all": "nothing to repair",
        "gc": "nothing to release",
        "gc --dry-run": "nothing to release",
        "doctor": "nothing wrong was found on this host",
        "port web": "container web has no published port",
        "detach web": "web is detached from mynet",
        "check --all": "nothing to check: no container is attached",
    }.items():
        if words != "detach web":
            assert call(host, *words.split()).stdout == "", words
        assert text in plain(on_screen(host, 80, *words.split())), words
    host.run(INSTALLED, *attach)
    assert json.loads(call(host, "detach", "web", "--json").stdout) == [
        {"container": "web", "network": "mynet", "ifname": "eth0"}
    ]
    assert json.loads(call(host, "gc", "--json").stdout) == []
    assert json.loads(call(host, "repair", "--all", "--json").stdout) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_command_works_on_an_empty_machine(host: Host, command: str) -> None:
    """There is neither network nor container nor record.  The command runs without and with arguments."""
    host.leaves(*LEAVES)
    # The keepers stay; the others change /usr/local.
    if command not in ("dhcp-keeper", "dns-keeper", "mdns-keeper", "install", "uninstall"):
        call(host, command, input="", fork=False)

    if WORDS[command] or command in HOOK:
        call(host, command, *WORDS[command].split(), fork=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_reports_damaged_files(host: Host, command: str) -> None:
    """A record, a lease and a configuration are cut off, as after a crash of the machine.

    A user without permission to read them gets an error.  A reader that closes the pipe gets none.
    """
    configure(host, bridge("mynet", "10.22.0.0/24"), **{"20-cut.conflist": '{"name": '})
    host.write(f"{NETWORKS}/mynet/10.22.0.9", "")
    host.leaves(*LEAVES)
    path = damage(host)

    result = call(host, command, *WORDS[command].split())
    if command != "gc":  # which releases it
        assert host.read(path) == "{"
    if command in ("ps", "stats", "check", "doctor"):
        assert path in result.stdout + result.stderr

    host.run("chmod", "700", RESULTS)
    host.run("chmod", "755", "/run", "/var/lib/cni")
    result = call(host, command, *WORDS[command].split(), as_user=NOBODY)
    assert (result.returncode == 0) is (command in WITHOUT_ROOT) or command in REPORTS_THE_FILE, result

    unread = host.run("sh", "-c", f"{INSTALLED} {command} {WORDS[command]} | true", input=STATE)
    assert all(line.startswith("cnihook: ") for line in unread.stderr.splitlines()), unread.stderr


# Arguments, and their exit code.
OUTPUTS = {"--help": 1, "--version": 1, "list": 1, "ps --help": 1, "list --nothing": 2}


@pytest.mark.parametrize("words", OUTPUTS)
def test_full_disk_is_reported(host: Host, words: str) -> None:
    configure(host, MYNET)
    result = host.run("sh", "-c", f"exec {INSTALLED} {words} > /dev/full", check=False)

    (line,) = result.stderr.splitlines()
    assert line.startswith(f"cnihook: {words.split()[0]}: ")
    assert ("No space left on device" in line) is (OUTPUTS[words] == 1)
    assert result.returncode == OUTPUTS[words]


@pytest.mark.parametrize("words", OUTPUTS)
def test_closed_pipe_is_not_reported(host: Host, words: str) -> None:
    configure(host, MYNET)
    script = f"{{ sleep 0.1; {INSTALLED} {words}; echo $? >&2; }} | true"

    lines = host.run("sh", "-c", script, check=False).stderr.splitlines()

    assert lines.pop() == str(OUTPUTS[words])
    assert len(lines) == OUTPUTS[words] - 1  # the usage error


@pytest.mark.parametrize("words", [*OUTPUTS, "ps", "inspect c1"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_closed_stream_counts_as_dev_null(host: Host, words: str, number: int) -> None:
    configure(host, MYNET)

    def outcome(where: str) -> tuple[int, str, str]:
        result = host.run("sh", "-c", f"exec {INSTALLED} {words} {number}>{where}", check=False)
        return result.returncode, result.stdout, result.stderr

    assert outcome("&-") == outcome("/dev/null")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in HOOK])
def test_help_fits_a_narrow_terminal(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prose and options fit.  Examples, headings, usage and text without spaces may be longer."""
    monkeypatch.setenv("COLUMNS", "40")
    lines = main.load(command).parser().format_help().splitlines()

    long = [line for line in lines if len(line) > 40 and not line.startswith((" ", "usage:"))]
    assert [line for line in long if line[-1] != ":"] == []


def test_output_fits_a_narrow_terminal(host: Host) -> None:
    """The tables are empty here; test_listings.py tests them with containers."""
    for command in ("ps", "stats", "graph"):
        lines = plain(on_screen(host, 40, command, *WORDS[command].split())).splitlines()
        assert max(map(len, lines), default=0) <= 40
