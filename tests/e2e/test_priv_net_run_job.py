# SPDX-License-Identifier: Apache-2.0
"""priv-net-run as a job: at the terminal, under signals, killed.  Nothing is left after any end."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Process, end
from tests.support.host.terminal import CTRL_BACKSLASH, CTRL_C, CTRL_D, CTRL_Z, Terminal
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import (
    LOOPBACK,
    MYNET,
    PASS_ON,
    RESULTS,
    bridge,
    calls,
    configure,
    external,
    leases,
    wait_for,
)

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
FOR_EVER = "exec sleep 2147483647"


@pytest.fixture
def mynet(host: Host) -> Host:
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    return host


@pytest.fixture
def terminal(mynet: Host) -> Iterator[Terminal]:
    with Terminal(mynet) as opened:
        yield opened


def start(host: Host, script: str, *, first: str = ":") -> Process:
    """Start a run whose command has done `first` and printed `up`, and then runs `script`."""
    running = host.popen(RUN, "sh", "-c", f"{first}; echo up; {script}")
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    return running


def ended(process: Process) -> int:
    """Return the exit status; the run has to end within 30 s, and print nothing on stderr."""
    _, stderr = process.communicate(timeout=30)
    assert stderr == ""
    return process.returncode


def processes(host: Host) -> dict[int, str]:
    """Return the command lines of the test host's processes by PID, as seen from outside."""
    space = os.readlink(f"/proc/{host.holder}/ns/pid")
    commands = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns/pid") == space:
                commands[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:
            pass
    return commands


def nothing_left(host: Host) -> bool:
    host.wait_for_endings()
    return not leases(host) and not host.listdir(RESULTS) and not host.listdir("/run/netns")


# At the terminal


def test_command_has_the_terminal(terminal: Terminal) -> None:
    terminal.type(f"tty; {RUN} tty\n")

    first = terminal.wait_for(r"(/dev/pts/\d+)\s")[1]
    assert terminal.wait_for(r"(/dev/pts/\d+)\s")[1] == first


def test_ctrl_c_ends_the_command_and_the_network(terminal: Terminal, mynet: Host) -> None:
    terminal.type(f"{RUN} sh -c 'echo u''p; {FOR_EVER}'\n")
    terminal.wait_for("up")
    terminal.type(CTRL_C)

    assert terminal.status() == 130
    assert nothing_left(mynet)


def test_ctrl_c_ends_the_callers_loop(terminal: Terminal) -> None:
    """A shell leaves its loop if the program was killed by the signal, and continues if it has exited."""
    terminal.type(f"for i in 1 2 3; do {RUN} sh -c 'echo u''p; {FOR_EVER}'; done; echo after''wards\n")
    terminal.wait_for("up")
    terminal.type(CTRL_C)

    assert terminal.status() == 130


LATE = """\
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from cnihook.process.jobcontrol import Job
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's handler would swallow it just before the exec
pid = os.fork()
if not pid:
    os.execvp("sleep", ["sleep", "2147483647"])
job = Job(pid)
job.begin()
print("u" + "p", flush=True)
time.sleep(0.5)
status = job.wait()
job.exit_like_child()
sys.exit(status)
"""


def test_ctrl_c_is_not_lost_before_the_wait(terminal: Terminal, mynet: Host) -> None:
    """On a busy machine, Ctrl-C may come before the wrapper waits for signals."""
    mynet.write("/run/late.py", LATE)
    mynet.leaves("file /run/late.py")
    terminal.type(f"for i in 1 2 3; do /usr/bin/python3 -IS /run/late.py {CHECKOUT}; done\n")
    terminal.wait_for("up")
    terminal.type(CTRL_C)

    assert terminal.status() == 130


def test_command_may_handle_ctrl_c(terminal: Terminal) -> None:
    terminal.type(
        f"{RUN} bash -c 'trap \"echo hand''led; exit 9\" INT; echo u''p; while :; do sleep 0.05; done'\n"
    )
    terminal.wait_for("up")
    terminal.type(CTRL_C)

    terminal.wait_for("handled")
    assert terminal.status() == 9


def test_quit_key_ends_the_command_and_the_network(terminal: Terminal, mynet: Host) -> None:
    terminal.type(f"ulimit -c 0; {RUN} sh -c 'echo u''p; {FOR_EVER}'\n")
    terminal.wait_for("up")
    terminal.type(CTRL_BACKSLASH)

    assert terminal.status() == 131
    assert nothing_left(mynet)


def test_ctrl_z_stops_the_job_and_fg_continues_it(terminal: Terminal) -> None:
    terminal.type(f"{RUN} bash -c 'echo u''p; read line; echo got $line; exit 6'\n")
    terminal.wait_for("up")
    terminal.type(CTRL_Z)
    terminal.wait_for(r"Stopped")
    terminal.type("jobs -l; echo in''between\n")
    terminal.wait_for(r"Stopped.*")
    terminal.wait_for("inbetween")
    terminal.type("fg\n")
    terminal.wait_for("read line")
    terminal.type("words\n")

    terminal.wait_for("got words")
    assert terminal.status() == 6


def test_job_in_the_background_is_continued_in_the_foreground(terminal: Terminal, mynet: Host) -> None:
    """The job stops when it reads from the terminal in the background, and the shell sees that."""
    terminal.type(f"{RUN} bash -c 'echo u''p; read line; echo got $line'&\n")
    terminal.wait_for("up")
    terminal.type("\n")
    wait_for(
        lambda: "T" in [state(pid) for pid, words in processes(mynet).items() if RUN in words],
        "the job to stop",
    )
    terminal.type("fg\nwords\n")

    terminal.wait_for("got words")
    assert terminal.status() == 0


def test_job_killed_in_the_background_leaves_nothing(terminal: Terminal, mynet: Host) -> None:
    terminal.type(f"{RUN} sh -c 'echo u''p; {FOR_EVER}' &\n")
    terminal.wait_for("up")
    terminal.type("kill %1; wait %1; (exit $?)\n")

    terminal.wait_for("Exit 143")
    assert terminal.status() == 143
    assert nothing_left(mynet)


def test_change_of_the_windows_size_reaches_the_command(terminal: Terminal) -> None:
    script = 'trap "stty size; exit" WINCH; echo u""p; while :; do sleep 0.05; done'
    terminal.type(f"{RUN} bash -c '{script}'\n")
    terminal.wait_for("up")
    terminal.resize(30, 120)

    terminal.wait_for(r"30 120")


def test_shell_inside_has_its_own_job_control(terminal: Terminal) -> None:
    """The shell takes the terminal for its jobs, stops itself, is continued, and releases the terminal."""
    terminal.type(f"PS1='in''ner> ' {RUN} bash --norc --noprofile --noediting -i\n")
    terminal.wait_for("inner> ")
    terminal.type("cat\n")
    terminal.type("echoed\n")
    terminal.wait_for("echoed\\s+echoed")
    terminal.type(CTRL_Z)
    terminal.wait_for("Stopped +cat")
    terminal.type("fg\n")
    terminal.type(CTRL_D)
    terminal.wait_for("inner> ")
    terminal.type("suspend\n")
    terminal.wait_for("Stopped.*")
    terminal.wait_for("ready> ")
    terminal.type("fg\n")
    terminal.wait_for("bash")
    terminal.type("echo in''side; exit 4\n")
    terminal.wait_for("inside")

    assert terminal.status() == 4


def test_ctrl_c_during_attach_leaves_nothing(terminal: Terminal, mynet: Host) -> None:
    folder = slow_plugin(mynet)
    terminal.type(f"{RUN} --cni-path {folder} touch /run/.host/ran\n")
    wait_for(lambda: calls(mynet), "the plugin's start")
    terminal.type(CTRL_C)

    terminal.wait_for("priv-net-run: interrupted")
    assert terminal.status() == 130
    assert nothing_left(mynet) and not mynet.exists("/run/.host/ran")


def test_terminal_that_is_closed_ends_the_command_and_the_network(terminal: Terminal, mynet: Host) -> None:
    terminal.type(f"{RUN} sh -c 'echo u''p; {FOR_EVER}'\n")
    terminal.wait_for("up")
    terminal.hang_up()

    wait_for(lambda: nothing_left(mynet) and "cni0" not in mynet.links(), "the end of the network")


# Signals


@pytest.mark.parametrize("name", ["TERM", "INT", "KILL"])
def test_run_ended_by_timeout_leaves_nothing(mynet: Host, name: str) -> None:
    """timeout(1) signals its child, and then the whole group, so the command may get two signals."""
    outcome = mynet.run("timeout", "-s", name, "0.5", RUN, "sh", "-c", FOR_EVER, check=False)

    assert outcome.returncode == (-9 if name == "KILL" else 124)  # with KILL, timeout kills itself too
    wait_for(lambda: nothing_left(mynet) and "cni0" not in mynet.links(), "the end of the network")


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "QUIT", "USR1", "ALRM"])
def test_signal_to_the_wrapper_reaches_the_command(mynet: Host, name: str) -> None:
    """A service manager or `kill` knows of no other process."""
    number = getattr(signal, f"SIG{name}")
    running = start(mynet, f"ulimit -c 0; {FOR_EVER}")
    os.kill(running.inside, number)

    assert ended(running) == 128 + number
    assert nothing_left(mynet)


def test_command_may_handle_the_signal_and_continue(mynet: Host) -> None:
    running = start(mynet, "while :; do sleep 0.05; done", first="trap 'echo handled; exit 3' TERM")
    os.kill(running.inside, signal.SIGTERM)

    stdout, _ = running.communicate(timeout=30)
    assert (stdout, running.returncode) == ("handled\n", 3)


def test_signal_of_the_command_to_its_group_arrives_once(mynet: Host) -> None:
    """If the wrapper passed it on, the command would get its own signal a second time."""
    script = "trap 'trap - TERM; echo first' TERM; kill -TERM 0; sleep 0.2; echo alive"

    outcome = mynet.run("setsid", "--wait", RUN, "sh", "-c", script)
    assert outcome.stdout == "first\nalive\n"


def test_stop_and_continue_by_signals_work(mynet: Host) -> None:
    """The caller sees the run stop when the command stops; SIGCONT to the wrapper continues both."""
    running = start(mynet, FOR_EVER)
    itself, command = running.inside, children(running)[0]
    os.kill(command, signal.SIGSTOP)
    wait_for(lambda: state(itself) == "T", "the job to stop")
    os.kill(itself, signal.SIGCONT)
    wait_for(lambda: state(command) == "S", "the command to continue")

    os.kill(running.inside, signal.SIGTERM)
    assert ended(running) == 143


def children(process: Process) -> list[int]:
    """Return the PIDs of the command and of the guardian."""
    inside = process.inside
    return [int(pid) for pid in Path(f"/proc/{inside}/task/{inside}/children").read_text().split()]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_stop_is_ignored_in_a_session_without_a_shell(mynet: Host) -> None:
    """The kernel ignores SIGTSTP in an orphaned process group, so the wrapper must not stop either."""
    script = "import os, signal; os.setpgid(0, 0); os.kill(0, signal.SIGTSTP); print('goes on')"

    outcome = mynet.run("setsid", RUN, "/usr/bin/python3", "-IS", "-c", script, timeout=20)
    assert outcome.stdout == "goes on\n"


def test_exit_status_is_kept_if_the_caller_ignores_sigchld(mynet: Host) -> None:
    """The kernel keeps no exit status if SIGCHLD is ignored."""
    ignore = "import os, sys, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    ignore += "os.execv(sys.argv[1], sys.argv[1:])"
    argv = ("/usr/bin/python3", "-IS", "-c", ignore, RUN, "sh", "-c", "exit 7")

    assert mynet.run(*argv, check=False).returncode == 7


# Killed


def test_killed_command_leaves_nothing(mynet: Host) -> None:
    running = start(mynet, FOR_EVER)
    os.kill(children(running)[0], signal.SIGKILL)

    assert ended(running) == 137
    assert nothing_left(mynet)


@pytest.mark.parametrize("group", [False, True], ids=["alone", "with its group"])
def test_killed_wrapper_leaves_nothing(mynet: Host, group: bool) -> None:
    """SIGKILL cannot be handled, so another process has to notice the end.  It also ends the command."""
    running = mynet.popen("setsid", RUN, "sh", "-c", f"echo up; {FOR_EVER}")
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    if group:
        os.killpg(running.inside, signal.SIGKILL)
    else:
        os.kill(running.inside, signal.SIGKILL)
    running.wait(30)

    wait_for(lambda: nothing_left(mynet) and "cni0" not in mynet.links(), "the guardian's work")
    wait_for(lambda: len(processes(mynet)) == 1, "the end of all processes")
    end(running)


def test_wrapper_killed_during_attach_leaves_nothing(mynet: Host) -> None:
    """The plugin continues for a moment; what it then creates has to be removed as well."""
    folder = slow_plugin(mynet)
    running = mynet.popen(RUN, "--cni-path", folder, "true")
    wait_for(lambda: calls(mynet), "the plugin's start")
    os.kill(running.inside, signal.SIGKILL)
    running.wait(30)
    mynet.write("/run/.host/go", "")

    wait_for(lambda: nothing_left(mynet) and "cni0" not in mynet.links(), "the guardian's work")
    assert calls(mynet) == ["slow ADD", "slow DEL"]
    end(running)


def slow_plugin(host: Host) -> str:
    """Add a second plugin to mynet, whose ADD waits for /run/.host/go, and return its folder."""
    add = f"while ! test -e /run/.host/go; do sleep 0.02; done; {PASS_ON}"
    folder = external(host, "slow", f"if [ $CNI_COMMAND = ADD ]; then {add}; fi")
    network = bridge("mynet", "10.22.0.0/16", bridge="cni0")
    network["plugins"].append({"type": "slow"})
    configure(host, **{"10-mynet.conf": LOOPBACK, "11-mynet.conflist": json.dumps(network)})
    return folder


def test_guardian_keeps_no_file_of_the_caller_open(mynet: Host) -> None:
    """The guardian may end after the run, and must not delay a reader of the output."""
    running = start(mynet, FOR_EVER)
    guardian = children(running)[1]

    files = {os.readlink(path) for path in Path(f"/proc/{guardian}/fd").iterdir()}
    assert {path for path in files if not path.startswith(("pipe:", "net:", "anon_inode:"))} == {"/dev/null"}
    assert len([path for path in files if path.startswith("pipe:")]) == 1
    assert os.getsid(guardian) == guardian and os.getsid(running.inside) != guardian
    os.kill(running.inside, signal.SIGTERM)
    assert ended(running) == 143
    assert not Path(f"/proc/{guardian}").exists()


def test_signal_to_all_processes_does_not_end_the_guardian(mynet: Host) -> None:
    """A service manager sends SIGTERM to every process, and the network must still be removed."""
    running = start(mynet, FOR_EVER)
    for pid in (*children(running), running.inside):
        os.kill(pid, signal.SIGTERM)

    assert ended(running) == 143
    assert nothing_left(mynet)
