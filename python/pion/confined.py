# SPDX-License-Identifier: Apache-2.0
"""python confined.py [--gigabytes N] [--inside [--programs]] SCRIPT ...: runs a script confined.

The script and all that it imports find

- an empty environment;
- no file but /dev/null that can be made, opened for writing, renamed or removed, and no socket to
  anywhere;
- N gigabytes of memory, above which Python raises MemoryError;
- no other program to run and no process to fork, unless --programs.

--inside says that bubblewrap runs this: the file system is read-only, and no processes but its own
are seen. Files may be opened for writing then, which fails or, as for /dev/null, does no harm.

System calls are filtered by libseccomp, without which this ends with a line {"error": TEXT} and
exit status 1. The lab runs this file by its path: it imports nothing of pion.
"""

import builtins
import ctypes
import errno
import fcntl
import io
import json
import os
import resource
import runpy
import sys
import tempfile
import termios

ALLOW, REFUSE, MISSING = (
    0x7FFF0000,
    0x00050000 | errno.EPERM,
    0x00050000 | errno.ENOSYS,
)  # seccomp.h: SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(...)
NOT_EQUAL, MASKED = 1, 7  # enum scmp_compare
LOW = 0xFFFFFFFF  # the kernel looks at these bits of an int

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CLONE_THREAD, CLONE_NEWUSER = 0x00010000, 0x10000000  # linux/sched.h

# What reading, computing and threads need; every other system call is refused.
HARMLESS = """
    read readv pread64 preadv preadv2 write writev pwrite64 lseek close close_range dup dup2 dup3
    pipe pipe2 eventfd2 poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait
    epoll_pwait2 recvfrom recvmsg shutdown getsockopt getsockname getpeername
    stat fstat lstat newfstatat fstatat64 statx statfs fstatfs access faccessat faccessat2
    readlink readlinkat getdents getdents64 getcwd chdir fchdir fadvise64 readahead umask
    mmap munmap mremap mprotect madvise mincore brk mlock munlock membarrier
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait
    sigaltstack restart_syscall alarm setitimer getitimer timer_create timer_settime
    timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
    futex futex_waitv set_robust_list get_robust_list rseq set_tid_address
    exit exit_group wait4 waitid sched_yield sched_getaffinity sched_getparam sched_getscheduler
    sched_get_priority_max sched_get_priority_min getcpu getpriority
    getpid gettid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp
    getpgid getsid uname sysinfo getrlimit setrlimit getrusage getrandom arch_prctl prctl
"""
HARMLESS_IOCTLS = [termios.TCGETS, termios.TIOCGWINSZ, termios.FIONREAD]
HARMLESS_IOCTLS += [termios.FIONBIO, termios.FIOCLEX]
HARMLESS_FCNTLS = [fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD]
HARMLESS_FCNTLS += [fcntl.F_GETFL, fcntl.F_SETFL]

# Ways out of bubblewrap's namespaces: a socket file of another program, rings that make sockets,
# a message to a path, further namespaces, the keys and the terminal of who started us.
WAYS_OUT = """
    socket connect bind listen sendmsg sendmmsg io_uring_setup io_uring_enter io_uring_register
    add_key keyctl request_key bpf perf_event_open userfaultfd ptrace process_vm_readv
    process_vm_writev mount umount2 pivot_root chroot unshare setns open_by_handle_at
    name_to_handle_at fsopen fsmount fsconfig fspick move_mount open_tree mount_setattr
"""


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: argument number `arg` of a call against one or two numbers."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class Filter:
    """A seccomp filter in the making. Raises OSError with the reason if libseccomp does."""

    def __init__(self, otherwise: int):
        self.library = ctypes.CDLL("libseccomp.so.2")
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(otherwise)))
        if not self.context:
            raise OSError("libseccomp: seccomp_init failed")

    def rule(self, action: int, call: str, *comparisons: tuple) -> None:
        """`action` for a call all of whose comparisons hold: (argument, operation, a, b)."""
        number = self.library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # not on this architecture, or younger than the library
            return
        array = (Comparison * len(comparisons))(*comparisons)
        self._check(
            f"rule of {call}",
            self.library.seccomp_rule_add_array(
                self.context, ctypes.c_uint32(action), number, len(comparisons), array
            ),
        )

    def load(self) -> None:
        """From here on, for this thread and all that it starts."""
        self._check("seccomp_load", self.library.seccomp_load(self.context))
        self.library.seccomp_release(self.context)

    def _check(self, what: str, code: int) -> None:
        if code < 0:
            raise OSError(f"libseccomp: {what}: {os.strerror(-code)}")


def strict_filter(inside: bool) -> Filter:
    """Reading files and computing; nothing else."""
    rules = Filter(REFUSE)
    own = os.getpid()
    for call in HARMLESS.split():
        rules.rule(ALLOW, call)
    for number in HARMLESS_IOCTLS:
        rules.rule(ALLOW, "ioctl", (1, MASKED, LOW, number))
    for call in ("fcntl", "fcntl64"):
        for number in HARMLESS_FCNTLS:
            rules.rule(ALLOW, call, (1, MASKED, LOW, number))
    for call, flags in (("open", 1), ("openat", 2)):
        rules.rule(ALLOW, call, *([] if inside else [(flags, MASKED, WRITES, 0)]))
    rules.rule(ALLOW, "clone", (0, MASKED, CLONE_THREAD, CLONE_THREAD))
    rules.rule(ALLOW, "kill", (0, MASKED, LOW, own))
    rules.rule(ALLOW, "tgkill", (0, MASKED, LOW, own))
    rules.rule(ALLOW, "prlimit64", (0, MASKED, LOW, 0))
    rules.rule(ALLOW, "sched_setaffinity", (0, MASKED, LOW, 0))
    for call in ("clone3", "openat2"):  # their arguments lie in memory; others take their place
        rules.rule(MISSING, call)
    return rules


def filter_of_namespaces() -> Filter:
    """What bubblewrap leaves open."""
    rules = Filter(ALLOW)
    for call in WAYS_OUT.split():
        rules.rule(REFUSE, call)
    rules.rule(REFUSE, "sendto", (4, NOT_EQUAL, 0, 0))  # an address
    for number in (termios.TIOCSTI, 0x541C):  # typing into a terminal; TIOCLINUX
        rules.rule(REFUSE, "ioctl", (1, MASKED, LOW, number))
    rules.rule(REFUSE, "clone", (0, MASKED, CLONE_NEWUSER, CLONE_NEWUSER))
    rules.rule(MISSING, "clone3")
    return rules


def limit_resources(gigabytes: float) -> None:
    """Memory that is written to; files of no bytes, no dumps; more than the hard limits allow: those."""
    written = int(gigabytes * 2**30)
    mapped = written + 2**34  # libraries and files, and what processes share: 16 GiB more
    limits = {
        resource.RLIMIT_DATA: written,
        resource.RLIMIT_AS: mapped,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))


def keep_null() -> None:
    """Python's open() of /dev/null goes on working: libraries send there what they do not need."""
    null, usual, usual_os = os.open(os.devnull, os.O_RDWR), builtins.open, os.open

    def opened(file, *arguments, **options):
        return usual(os.dup(null) if file == os.devnull else file, *arguments, **options)

    def opened_by_os(path, *arguments, **options):
        return os.dup(null) if path == os.devnull else usual_os(path, *arguments, **options)

    builtins.open = io.open = opened
    os.open = opened_by_os


def confine(gigabytes: float, inside: bool, programs: bool) -> None:
    """This process, for good."""
    os.environ.clear()
    tempfile.tempdir = "/tmp"  # libraries ask for its name when imported; none can be written
    if not inside:
        keep_null()
    limit_resources(gigabytes)
    (filter_of_namespaces() if programs else strict_filter(inside)).load()


def main() -> int:
    words = sys.argv[1:]
    gigabytes, inside, programs = 4.0, False, False
    while words and words[0].startswith("--"):
        option = words.pop(0)
        if option == "--inside":
            inside = True
        elif option == "--programs" and inside:
            programs = True
        elif option == "--gigabytes" and words:
            gigabytes = float(words.pop(0))
        else:
            print(json.dumps({"error": f"confined: unknown option {option}"}))
            return 1
    if not words:
        print(json.dumps({"error": "confined: needs a script"}))
        return 1
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != folder]
    sys.dont_write_bytecode = True
    try:
        confine(gigabytes, inside, programs)
    except (OSError, ValueError) as error:
        print(json.dumps({"error": f"cannot be confined: {error}"}))
        return 1
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
