# SPDX-License-Identifier: Apache-2.0
"""linux.flock: one process at a time, and no lock after the death of its holder."""

import errno
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cnihook.linux.flock import Lock, LockBusyError, clear_abandoned
from tests.unit import child

HOLD = """\
with flock.Lock("nft", purpose="attach c1"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(state: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start another process that holds the lock until it gets a line or is killed."""
    process = child.start(state, HOLD)
    assert child.line(process) == "held"
    yield process
    process.kill()
    process.communicate()


def files(state: Path) -> list[str]:
    return sorted(os.listdir(state / "run"))


def test_lock_creates_its_folder_and_removes_its_file(state: Path) -> None:
    with Lock("nft"):
        assert files(state) == ["nft.lock"]
        assert (state / "run").stat().st_mode & 0o777 == 0o700
        assert (state / "run" / "nft.lock").stat().st_mode & 0o777 == 0o600
    assert files(state) == []


def test_lock_is_released_if_its_block_fails(state: Path) -> None:
    with pytest.raises(KeyError), Lock("nft"):
        raise KeyError

    with Lock("nft", timeout=0):
        pass


def test_locks_of_different_names_are_independent(holder: object) -> None:
    with Lock("container-c1", timeout=0):
        pass


def test_deadline_names_the_holder(holder: "subprocess.Popen[str]", state: Path) -> None:
    """On a timeout, the error names the process that has the lock."""
    started = time.monotonic()
    with pytest.raises(LockBusyError) as busy, Lock("nft", timeout=0.2):
        pytest.fail("two processes hold one lock")

    assert time.monotonic() - started >= 0.2
    assert f"process {holder.pid} (attach c1)" in str(busy.value)
    assert str(state / "run" / "nft.lock") in str(busy.value)
    assert "0.2 s" in str(busy.value)
    assert files(state) == ["nft.lock"], "the file is the holder's"


def test_timeout_of_zero_means_one_attempt(holder: object) -> None:
    with pytest.raises(LockBusyError), Lock("nft", timeout=0):
        pytest.fail("two processes hold one lock")


def test_timeout_of_zero_suffices_without_the_folder() -> None:
    """After boot, leftovers are collected first, and this must not wait."""
    with Lock("nft", timeout=0):
        pass


def test_waiting_ends_when_the_holder_releases_the_lock(
    holder: "subprocess.Popen[str]", state: Path
) -> None:
    assert holder.stdin
    holder.stdin.write("\n")
    holder.stdin.flush()

    with Lock("nft", timeout=10):
        assert files(state) == ["nft.lock"]
    assert files(state) == []


def test_lock_of_a_killed_holder_is_free(holder: "subprocess.Popen[str]", state: Path) -> None:
    """The lock file still exists, but does not lock anything."""
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    assert files(state) == ["nft.lock"]

    with Lock("nft", timeout=0):
        pass
    assert files(state) == []


def test_lock_is_not_inherited_by_a_process_of_the_holder(state: Path) -> None:
    """A plugin may leave a process running, which would hold the lock for ever if it had the descriptor."""
    code = """\
import subprocess
with flock.Lock("nft"):
    left = subprocess.Popen(["sleep", "60"], close_fds=False, stdin=-3, stdout=-3, stderr=-3)
print(left.pid)
"""
    left = int(child.finish(child.start(state, code)))
    try:
        with Lock("nft", timeout=0):
            pass
    finally:
        os.kill(left, signal.SIGKILL)


def test_many_processes_take_turns(state: Path) -> None:
    """Each process creates and removes the file: a lock on an unlinked file excludes no other process."""
    counter = state / "counter"
    counter.write_text("0")
    code = """\
for _ in range(40):
    with flock.Lock("nft"):
        with open(sys.argv[2]) as file:
            seen = int(file.read())
        if os.path.exists(sys.argv[2] + ".busy"):
            print("two at a time")
        os.close(os.open(sys.argv[2] + ".busy", os.O_CREAT))
        time.sleep(0.0002)
        with open(sys.argv[2], "w") as file:
            file.write(str(seen + 1))
        os.unlink(sys.argv[2] + ".busy")
"""
    processes = [child.start(state, code, str(counter)) for _ in range(4)]

    assert [child.finish(process) for process in processes] == [""] * 4
    assert counter.read_text() == "160"
    assert files(state) == []


def test_name_of_a_lock_may_be_very_long(state: Path) -> None:
    with Lock("container-" + "c" * 255, timeout=1):
        assert len(files(state)) == 1


def test_link_at_the_path_of_a_lock_is_not_followed(state: Path) -> None:
    """Opening a lock truncates it, so the link's target would be emptied."""
    (state / "run").mkdir()
    (state / "precious").write_text("content")
    (state / "run" / "nft.lock").symlink_to(state / "precious")

    with pytest.raises(OSError), Lock("nft", timeout=0):
        pass
    assert (state / "precious").read_text() == "content"


def test_removed_lock_file_is_not_an_error_at_release(state: Path) -> None:
    """An administrator may run `rm -r /run/cnihook`; the work under the lock was still done."""
    with Lock("nft"):
        (state / "run" / "nft.lock").unlink()


def test_only_lock_files_of_dead_processes_are_removed(holder: "subprocess.Popen[str]", state: Path) -> None:
    (state / "run" / "container-c1.lock").write_text("process 4711 (attach c1)")
    (state / "run" / "notes").touch()

    clear_abandoned()
    assert files(state) == ["nft.lock", "notes"]

    holder.kill()
    holder.wait(10)
    clear_abandoned()
    assert files(state) == ["notes"]


def test_lock_without_a_living_signer_is_cleared_and_another_is_not_tried(
    holder: "subprocess.Popen[str]", state: Path
) -> None:
    """A file without a signature is that of a process that was killed before it signed."""
    (state / "run" / "names.lock").touch()
    (state / "run" / "container-c1.lock").write_text("process 4711 (attach c1)")

    with Lock("bridge-br0"):
        clear_abandoned(signed=False)
        assert files(state) == ["bridge-br0.lock", "nft.lock"]


def test_clearing_without_a_lock_succeeds(state: Path) -> None:
    clear_abandoned()

    assert not (state / "run").exists()


def test_shared_lock_has_any_number_of_holders(state: Path) -> None:
    """The last holder removes the file."""
    with Lock("net", shared=True, timeout=0):
        with Lock("net", shared=True, timeout=0):
            assert files(state) == ["net.lock"]
        assert files(state) == ["net.lock"]
        with pytest.raises(LockBusyError), Lock("net", timeout=0):
            pytest.fail("an exclusive lock together with a shared one")
    assert files(state) == []


def test_shared_lock_waits_for_an_exclusive_one(state: Path) -> None:
    with Lock("net", purpose="gc net"), pytest.raises(LockBusyError, match="gc net"):
        with Lock("net", shared=True, timeout=0):
            pytest.fail("a shared lock together with an exclusive one")


def test_waiting_processes_get_the_lock_in_order(holder: "subprocess.Popen[str]", state: Path) -> None:
    """A process that asks repeatedly is behind those that wait."""
    code = """\
print("waits", flush=True)
with flock.Lock("nft"):
    with open(sys.argv[2], "a") as file:
        file.write(sys.argv[3])
"""
    order = state / "order"
    waiting = []
    for number in range(5):
        waiting.append(child.start(state, code, str(order), str(number)))
        child.line(waiting[-1])
        wait_until_blocked(waiting[-1].pid)
    assert holder.stdin
    holder.stdin.write("\n")
    holder.stdin.flush()

    assert [child.finish(process) for process in waiting] == [""] * 5
    assert order.read_text() == "01234"
    assert files(state) == []


def test_exclusive_lock_has_its_turn_among_shared_ones(state: Path) -> None:
    """Containers start all the time, and a gc waits for them."""
    code = """\
print("starts", flush=True)
end = time.monotonic() + 15
while time.monotonic() < end and not os.path.exists(sys.argv[2]):
    with flock.Lock("net", shared=True):
        time.sleep(0.1)
"""
    enough = state / "enough"
    shared = [child.start(state, code, str(enough)) for _ in range(4)]
    try:
        for process in shared:
            child.line(process)
            time.sleep(0.02)  # one has the lock whenever another releases it
        for _ in range(3):
            with Lock("net", timeout=10):
                pass
    finally:
        enough.touch()
    assert [child.finish(process) for process in shared] == [""] * 4
    assert files(state) == []


def wait_until_blocked(pid: int) -> None:
    """Wait until /proc/locks has a line with -> for the process."""
    for _ in range(1000):
        if any(line.split()[1] == "->" and int(line.split()[5]) == pid for line in open("/proc/locks")):
            return
        time.sleep(0.01)
    pytest.fail("the process does not wait")


def test_alarm_of_the_caller_ends_the_wait_and_is_not_lost(holder: object) -> None:
    """The hook's own deadline is such an alarm."""

    def ring(_signum: int, _frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedError), Lock("nft", timeout=30):
            pytest.fail("two processes hold one lock")
        signal.setitimer(signal.ITIMER_REAL, 60)
        with pytest.raises(LockBusyError), Lock("nft", timeout=0.1):
            pytest.fail("two processes hold one lock")
        assert signal.getsignal(signal.SIGALRM) is ring
        assert 0 < signal.setitimer(signal.ITIMER_REAL, 0)[0] < 60
    finally:
        signal.signal(signal.SIGALRM, before)


def test_wait_ends_without_an_alarm_too(holder: object) -> None:
    """An alarm does not arrive in another thread, nor while the signal is blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    try:
        with pytest.raises(LockBusyError), Lock("nft", timeout=0.1):
            pytest.fail("two processes hold one lock")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    with ThreadPoolExecutor() as threads, pytest.raises(LockBusyError):
        threads.submit(Lock("nft", timeout=0.1).__enter__).result(30)


def test_lock_that_the_kernel_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(OSError, match="No locks available.*lock .*/mine.lock"):
        Lock("mine").__enter__()
