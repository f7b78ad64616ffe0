# SPDX-License-Identifier: Apache-2.0
"""System calls of x86_64 by number, and the groups that the tracer and the matrices need."""

# fmt: off
_TABLE = """
0 read, 1 write, 2 open, 3 close, 4 stat, 5 fstat, 6 lstat, 7 poll, 8 lseek, 9 mmap, 10 mprotect
11 munmap, 12 brk, 13 rt_sigaction, 14 rt_sigprocmask, 15 rt_sigreturn, 16 ioctl, 17 pread64
18 pwrite64, 19 readv, 20 writev, 21 access, 22 pipe, 23 select, 24 sched_yield, 25 mremap, 26 msync
28 madvise, 32 dup, 33 dup2, 34 pause, 35 nanosleep, 36 getitimer, 37 alarm, 38 setitimer, 39 getpid
40 sendfile, 41 socket, 42 connect, 43 accept, 44 sendto, 45 recvfrom, 46 sendmsg, 47 recvmsg
48 shutdown, 49 bind, 50 listen, 51 getsockname, 52 getpeername, 53 socketpair, 54 setsockopt
55 getsockopt, 56 clone, 57 fork, 58 vfork, 59 execve, 60 exit, 61 wait4, 62 kill, 63 uname
72 fcntl, 73 flock, 74 fsync, 75 fdatasync, 76 truncate, 77 ftruncate, 79 getcwd, 80 chdir
81 fchdir, 82 rename, 83 mkdir, 84 rmdir, 85 creat, 86 link, 87 unlink, 88 symlink, 89 readlink
90 chmod, 91 fchmod, 92 chown, 93 fchown, 94 lchown, 95 umask, 96 gettimeofday, 97 getrlimit
98 getrusage, 99 sysinfo, 100 times, 102 getuid, 104 getgid, 105 setuid, 106 setgid, 107 geteuid
108 getegid, 109 setpgid, 110 getppid, 111 getpgrp, 112 setsid, 113 setreuid, 114 setregid
115 getgroups, 116 setgroups, 117 setresuid, 119 setresgid, 121 getpgid, 124 getsid, 125 capget
126 capset, 131 sigaltstack, 132 utime, 133 mknod, 135 personality, 137 statfs, 138 fstatfs
157 prctl, 158 arch_prctl, 161 chroot, 162 sync, 165 mount, 166 umount2, 170 sethostname
171 setdomainname, 186 gettid, 187 readahead, 188 setxattr, 202 futex, 204 sched_getaffinity
217 getdents64, 218 set_tid_address, 219 restart_syscall, 228 clock_gettime, 229 clock_getres
230 clock_nanosleep, 231 exit_group, 232 epoll_wait, 233 epoll_ctl, 234 tgkill, 247 waitid
254 inotify_add_watch, 257 openat, 258 mkdirat, 259 mknodat, 260 fchownat, 262 newfstatat
263 unlinkat, 264 renameat, 265 linkat, 266 symlinkat, 267 readlinkat, 268 fchmodat, 269 faccessat
270 pselect6, 271 ppoll, 272 unshare, 273 set_robust_list, 274 get_robust_list, 280 utimensat
281 epoll_pwait, 282 signalfd, 283 timerfd_create, 284 eventfd, 285 fallocate, 286 timerfd_settime
288 accept4, 289 signalfd4, 290 eventfd2, 291 epoll_create1, 292 dup3, 293 pipe2, 294 inotify_init1
299 recvmmsg, 302 prlimit64, 303 name_to_handle_at, 306 syncfs, 307 sendmmsg, 308 setns, 309 getcpu
310 process_vm_readv, 314 sched_setattr, 316 renameat2, 317 seccomp, 318 getrandom, 319 memfd_create
322 execveat, 326 copy_file_range, 332 statx, 334 rseq, 424 pidfd_send_signal, 428 open_tree
429 move_mount, 430 fsopen, 431 fsconfig, 432 fsmount, 435 clone3, 436 close_range, 437 openat2
438 pidfd_getfd, 439 faccessat2, 442 mount_setattr"""
# fmt: on

NAMES = {
    int(number): name
    for number, name in (entry.split() for entry in _TABLE.replace("\n", ",").split(",") if entry)
}
NUMBERS = {name: number for number, name in NAMES.items()}

# These are not counted: they act on the process's own memory, signals, clocks or descriptors.  A kill at one
# of them equals a kill at the next call, and none of them returns an errno of the matrix.
PRIVATE = """
    lseek mmap mprotect munmap brk mremap madvise rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack
    sched_yield nanosleep getitimer alarm setitimer getpid gettid getppid getpgrp getpgid getsid exit
    exit_group getcwd chdir fchdir umask gettimeofday getrlimit getrusage times getuid getgid geteuid
    getegid getgroups personality arch_prctl futex sched_getaffinity set_tid_address restart_syscall
    clock_gettime clock_getres clock_nanosleep set_robust_list get_robust_list prlimit64 getcpu getrandom
    rseq wait4 waitid close close_range execve execveat select poll pselect6 ppoll epoll_wait epoll_pwait
""".split()

# The host may differ after one of these calls, and after an openat() that creates.  A kill at any other call
# has the same effect as a kill at the next of these.
CHANGING = """
    write pwrite64 writev ioctl sendto sendmsg sendmmsg connect flock fsync fdatasync truncate ftruncate
    rename renameat renameat2 mkdir mkdirat rmdir creat link linkat unlink unlinkat symlink symlinkat
    chmod fchmod fchmodat chown fchown lchown fchownat mknod mknodat mount umount2 sethostname
    setdomainname unshare clone clone3 fork vfork open_tree move_mount fsmount utimensat kill tgkill
    pidfd_send_signal copy_file_range sendfile fallocate setxattr
""".split()

# The first argument of these calls is a path; the second of those below.
PATH_FIRST = """
    open stat lstat access truncate rename mkdir rmdir creat link unlink symlink readlink chmod chown
    lchown mount umount2 statfs chroot mknod utime
""".split()
PATH_SECOND = """
    openat openat2 mkdirat mknodat fchownat newfstatat unlinkat renameat renameat2 linkat readlinkat
    fchmodat faccessat faccessat2 statx utimensat open_tree inotify_add_watch
""".split()
DESCRIPTOR_FIRST = """
    read write fstat ioctl pread64 pwrite64 readv writev connect sendto recvfrom sendmsg recvmsg bind
    setsockopt getsockopt getsockname fcntl flock fsync fdatasync ftruncate getdents64 setns fstatfs
    fchmod fchown
""".split()
