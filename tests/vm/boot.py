#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
Run one command as root under Debian's own kernel, whatever kernel this machine has.

    tests/vm/boot.py ip link add d0 type dummy      prints its output, and exits with its status

QEMU starts the kernel on an overlay of this machine's root.  The command finds every file at its usual
path, and has the working directory and the environment of its caller.  Nothing that it writes lasts.
The processor is emulated, at a tenth of the real one's speed; VM_ACCEL=kvm uses the real one.

apt-get downloads the kernel into ~/.cache/cnihook-vm (or $VM_CACHE) and never installs it.
Remove that folder to get a newer kernel.

Exit status: the command's; 125 if this machine lacks a program or the kernel, 126 if the guest died.
"""

from __future__ import annotations

import ctypes
import fcntl
import lzma
import mmap
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

CACHE = Path(os.environ.get("VM_CACHE") or Path.home() / ".cache/cnihook-vm")
# kvm is not the default where /dev/kvm opens, because in some clouds it opens and a guest never starts.
ACCEL = os.environ.get("VM_ACCEL") or "tcg"
LIMIT = 1200  # seconds for the command: a hanging guest must not outlive the tests that wait for it

# The modules that mount the machine's root.  The kernel loads other modules by itself from there.
MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")

XZ = b"\xfd7zXZ\0"  # the first bytes of what xz has packed

INIT = r"""
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done

mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro root /low
mount -t tmpfs over /over
mkdir /over/upper /over/work
tar xf "/low$FOLDER/near.tar" -C /over/upper
mount -t overlay -o lowerdir=/low,upperdir=/over/upper,workdir=/over/work root /new

mkdir -p /new/lib/modules
mount -o bind "/low$ROOT/lib/modules" /new/lib/modules
mount -t tmpfs run /new/run
for folder in proc sys dev; do mount --move /$folder /new/$folder; done
mkdir /new/dev/pts /new/dev/shm
mount -t devpts pts /new/dev/pts
mount -t tmpfs shm /new/dev/shm
ln -s /proc/self/fd /new/dev/fd
mount -t cgroup2 cgroup /new/sys/fs/cgroup

cp /bin/busybox /job /new/run
exec switch_root /new /bin/sh /run/job
"""

JOB = r"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin
modprobe tun  # it is not loaded by itself: a program needs its device, which does not exist before
ip link set lo up
cd "$1"
shift
timeout -s KILL "$LIMIT" env -i "$@" < /dev/null > /dev/vport0p1 2>&1
echo $? > /dev/vport0p2
/run/busybox poweroff -f
"""

# The guest gets copies of these programs, which tests start very often.  Over 9P each start would take some
# twenty requests to read libraries and the locale.
NEAR = ("busybox", "cat", "env", "ip", "nft", "ping", "setpriv", "sh", "sleep", "tc", "unshare")


class BootError(Exception):
    """The reason why this machine cannot start a guest."""


class GuestDied(Exception):
    """The guest ended without the command's exit status."""


def main() -> NoReturn:
    if len(sys.argv) < 2:
        sys.exit("usage: boot.py COMMAND [ARGUMENT]...")
    signal.signal(signal.SIGTERM, exit_on_signal)  # run the `finally` that ends QEMU
    try:
        sys.exit(run(sys.argv[1:]))
    except BootError as error:
        print(f"boot.py: {error}", file=sys.stderr)
        sys.exit(125)
    except GuestDied as error:
        print(f"boot.py: {error}", file=sys.stderr)
        sys.exit(126)


def exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def run(command: list[str]) -> int:
    """Run a command under the other kernel, with this process's stdout.  Returns its exit status."""
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise BootError("qemu-system-x86_64 is missing; apt-get install qemu-system-x86")
    root = kernel()
    with tempfile.TemporaryDirectory(prefix="cnihook-vm-") as folder:
        console, status = Path(folder, "console"), Path(folder, "status")
        Path(folder, "initramfs").write_bytes(initramfs(root, folder, command))
        with tarfile.open(f"{folder}/near.tar", "w", dereference=True) as tar:
            for path in near():
                tar.add(path)
        machine = [
            *("setpriv", "--pdeathsig", "KILL"),  # it ends with this process
            *(qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            # One processor: a second one makes emulation slower by a third, and one test runs at a time.
            # With erms, the guest copies and clears memory by `rep movsb`, which is emulated byte by byte.
            *("-accel", ACCEL, "-cpu", "max,-erms,-fsrm", "-smp", "1", "-m", "1024"),
            *("-kernel", str(unpacked(root)), "-initrd", f"{folder}/initramfs"),
            # norandmaps: QEMU does not translate code again that is at the same address as before.
            *(
                "-append",
                f"console=ttyS0 quiet panic=-1 mitigations=off norandmaps init_on_alloc=0 {clock()}",
            ),
            *("-serial", f"file:{console}"),
            # The command's output does not use the console, which is slow and has the kernel's messages.
            # This is the first virtio device, so its ports are vport0p1 and vport0p2.
            *("-device", "virtio-serial-pci"),
            *("-chardev", "stdio,id=output,signal=off", "-device", "virtserialport,nr=1,chardev=output"),
            *("-chardev", f"file,id=status,path={status}", "-device", "virtserialport,nr=2,chardev=status"),
            *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root"),
            # Two network cards and a cable between them; they cost nothing until their drivers are loaded.
            *("-netdev", cable(folder, "end0", "end1"), "-device", "e1000,netdev=end0,addr=0x10,romfile="),
            *("-netdev", cable(folder, "end1", "end0")),
            *("-device", "virtio-net-pci,netdev=end1,addr=0x11,romfile="),
        ]
        # stdin is a pipe that stays open: at the end of its input QEMU would close its output as well.
        process = subprocess.Popen(machine, stdin=subprocess.PIPE)
        try:
            process.wait(LIMIT + 60)
        except subprocess.TimeoutExpired:
            pass  # the guest hangs outside the command, which has a limit of its own
        finally:
            process.kill()
            process.wait()
        try:
            return int(status.read_text())
        except (OSError, ValueError):
            tail = console.read_text(errors="replace")[-4000:] if console.exists() else ""
            raise GuestDied(f"the guest sent no exit status; its console:\n{tail}") from None


def clock() -> str:
    """Return the kernel options that make the processor's counter the guest's clock.

    With any other clock, reading the time is a system call.  The counter's rate is measured here.  On a
    busy machine the guest's own measurement was wrong by a factor of three: 20 seconds expired after 7.
    """
    options = "tsc=reliable clocksource=tsc"
    if os.uname().machine != "x86_64":
        return options
    rdtsc = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3"  # rdtsc; shl rdx, 32; or rax, rdx; ret
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(rdtsc)
        place = ctypes.c_char.from_buffer(code)
        counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(place))

        def both() -> tuple[int, int]:
            while True:
                before, ticks, after = time.monotonic_ns(), counter(), time.monotonic_ns()
                if after - before < 50_000:  # no other process ran in between
                    return before, ticks

        began, first = both()
        time.sleep(0.1)
        ended, last = both()
        del place  # the mapping cannot be closed while it exists
    return f"{options} tsc_early_khz={(last - first) * 1_000_000 // (ended - began)}"


def cable(folder: str, end: str, other: str) -> str:
    """Return QEMU's option for one end of a network cable."""
    ends = f"local.path={folder}/{end},remote.type=unix,remote.path={folder}/{other}"
    return f"dgram,id={end},local.type=unix,{ends}"


def kernel() -> Path:
    """Return the folder with Debian's newest kernel and a static busybox; download them if it is missing."""
    root = CACHE / "root"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock, tempfile.TemporaryDirectory(dir=CACHE) as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():
            return root
        # Separate lists of packages: the machine's may be old or missing, and only root can update them.
        for name in ("lists/partial", "cache/archives/partial"):
            Path(folder, name).mkdir(parents=True)
        options = [
            f"-oDir::State::Lists={folder}/lists",
            f"-oDir::Cache={folder}/cache",
            "-oAPT::Sandbox::User=",
        ]
        output("apt-get", *options, "-oAPT::Update::Error-Mode=any", "update")
        depends = output("apt-cache", *options, "depends", "linux-image-amd64")
        image = next(line.split()[1] for line in depends.splitlines() if "Depends:" in line)
        output("apt-get", *options, "download", image, "busybox-static", cwd=folder)
        for package in Path(folder).glob("*.deb"):
            output("dpkg", "-x", str(package), f"{folder}/root")
        for name in ("bin", "lib"):  # from Debian 13 on packages have them below /usr only
            if not Path(folder, "root", name).exists():
                Path(folder, "root", name).symlink_to(f"usr/{name}")
        output("depmod", "-b", f"{folder}/root", image.removeprefix("linux-image-"))
        os.rename(f"{folder}/root", root)
    return root


def unpacked(root: Path) -> Path:
    """Return the kernel as QEMU can start it without its own decompressor, which takes half of the boot.

    Returns the packed kernel if it is packed otherwise than by xz.
    """
    kernel = next(root.glob("boot/vmlinuz-*"))
    image = CACHE / kernel.name.replace("vmlinuz", "vmlinux")
    if not image.exists():
        content = kernel.read_bytes()
        start = content.find(XZ)
        if start < 0:
            return kernel
        with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file:
            file.write(lzma.LZMADecompressor().decompress(content[start:]))
        os.rename(file.name, image)
    return image


def near() -> list[str]:
    """Return the programs' files, by paths without links to folders, which the overlay would replace."""
    programs = [program for program in map(shutil.which, NEAR) if program]
    libraries = subprocess.run(["ldd", *programs], capture_output=True, text=True).stdout
    named = {
        *programs,
        *(word for word in libraries.split() if word.startswith("/") and not word.endswith(":")),
        "/etc/ld.so.cache",
        *map(str, Path("/usr/lib/locale/C.utf8").rglob("*")),
    }
    places = {
        os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) for path in named
    }
    return sorted(place for place in places if os.path.isfile(place))


def initramfs(root: Path, folder: str, command: list[str]) -> bytes:
    """Return the initramfs, which mounts the machine's root and runs the command there."""
    (release,) = os.listdir(root / "lib/modules")
    insmods = output("modprobe", "-ad", str(root), "-S", release, "--show-depends", *MODULES)
    modules = dict.fromkeys(line.split()[1] for line in insmods.splitlines() if line.startswith("insmod"))
    job = ["set", "--", os.getcwd(), *(f"{name}={value}" for name, value in os.environ.items()), *command]
    files = {f"modules/{n:02}.ko": module(Path(path)) for n, path in enumerate(modules)}
    files["bin/busybox"] = (root / "bin/busybox").read_bytes()
    files["init"] = (
        f"#!/bin/busybox sh\nROOT={shlex.quote(str(root))} FOLDER={shlex.quote(folder)}\n{INIT}".encode()
    )
    files["job"] = f"LIMIT={LIMIT}\n{shlex.join(job)}\n{JOB}".encode()
    return b"".join(
        [
            *(
                entry(name, 0o40755)
                for name in ("bin", "modules", "proc", "sys", "dev", "low", "over", "new")
            ),
            *(entry(name, 0o100755, content) for name, content in files.items()),
            entry("TRAILER!!!", 0),
        ]
    )


def module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """Return one file of a cpio archive in the format "newc"."""
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    header = ("070701" + "".join(f"{number:08x}" for number in numbers) + name).encode() + b"\0"
    return b"".join(part + bytes(-len(part) % 4) for part in (header, content))


def output(*command: str, cwd: str | None = None) -> str:
    """Run a program of this machine.  Returns its stdout."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # depmod is in /sbin
    try:
        return subprocess.run(
            command, cwd=cwd, env={**os.environ, "PATH": path}, check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError:
        raise BootError(f"{command[0]} is missing") from None
    except subprocess.CalledProcessError as error:
        tried = " ".join(word for word in command if not word.startswith("-"))
        raise BootError(f"{tried}: {'; '.join(error.stderr.splitlines())}") from None


if __name__ == "__main__":
    main()
