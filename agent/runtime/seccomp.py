"""The system calls a container may make, and the filter program made of them.

``agent/runtime/bundle.py`` puts the result into config.json. The allow list is
what Docker's default level grants; everything unknown answers ENOSYS, so that a
C library falls back instead of failing, and calls known to be dangerous answer
EPERM, as programs expect of a denial.

crun compiles the JSON form again for every container (about 5 ms). ``compiled``
does it once per capability set with libseccomp and hands the program over; where
libseccomp cannot be loaded the JSON form is used, with the same verdicts.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import functools
import os
import platform
import struct
from typing import Any, Final

# Allowed for everybody.
_ALWAYS = """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32
geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday
getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set
io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek
lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall
riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity
sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid
setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid
setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit
set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr
setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask
sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink
symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64
utimes vfork vmsplice wait4 waitid waitpid write writev
process_vm_readv process_vm_writev ptrace
"""
ALWAYS: Final = tuple(_ALWAYS.split())

# Allowed on one architecture only.
BY_ARCH: Final = {
    "amd64": ("arch_prctl", "modify_ldt"),
    "arm64": (
        *("arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2"),
        *("breakpoint", "cacheflush", "set_tls"),
    ),
}

# Allowed together with a capability.
BY_CAPABILITY: Final[dict[str, tuple[str, ...]]] = {
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_SYS_ADMIN": (
        *("bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick"),
        *("lookup_dcookie", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount"),
        *("mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl"),
        *("quotactl_fd", "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2"),
        "unshare",
    ),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYS_CHROOT": ("chroot",),
    "CAP_SYS_MODULE": ("delete_module", "init_module", "finit_module"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise"),
    "CAP_SYS_RAWIO": ("iopl", "ioperm"),
    "CAP_SYS_TIME": ("settimeofday", "stime", "clock_settime", "clock_settime64"),
    "CAP_SYS_TTY_CONFIG": ("vhangup",),
    "CAP_SYS_NICE": (
        *("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
        *("migrate_pages", "move_pages"),
    ),
    "CAP_SYSLOG": ("syslog",),
    "CAP_BPF": ("bpf",),
    "CAP_PERFMON": ("perf_event_open",),
}

# Known and never allowed: a plain denial is what programs expect.
_DENIED = """
add_key keyctl request_key io_uring_setup io_uring_enter io_uring_register userfaultfd
kexec_load kexec_file_load swapon swapoff pivot_root nfsservctl uselib ustat sysfs _sysctl
create_module get_kernel_syms query_module vm86 vm86old sgetmask ssetmask bdflush
"""
DENIED: Final = tuple(_DENIED.split())

_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag of clone(2) but CLONE_NEWTIME
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40
_ARCHES = {
    "amd64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "arm64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_TOKENS = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000


def machine() -> str:
    """Return this machine's architecture in Go's words, as images use them."""
    name = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(name, name)


def _argument(index: int, value: int, op: str, value_two: int = 0) -> dict[str, Any]:
    argument: dict[str, Any] = {"index": index, "value": value, "op": op}
    if value_two:
        argument["valueTwo"] = value_two
    return argument


def _allow(names: list[str], *args: dict[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if args:
        rule["args"] = list(args)
    return rule


def _deny(names: list[str], code: int = errno.EPERM) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": code}


def profile(
    capabilities: frozenset[str], arch: str = "amd64", *, socketcall: bool = True
) -> dict[str, Any]:
    """Return the OCI ``linux.seccomp`` object for a container with these capabilities.

    ``socketcall``: by it 32-bit programs open sockets of any family, which the filter cannot see;
    without it the call answers ENOSYS, by the program; libseccomp makes EPERM of it in the JSON
    form, because rules for socket() mean this call too.
    """
    allowed = set(ALWAYS) | set(BY_ARCH.get(arch, ()))
    if not socketcall:
        allowed.discard("socketcall")
    gated: set[str] = set()
    for capability, names in BY_CAPABILITY.items():
        if capability in capabilities:
            allowed.update(names)
        gated.update(names)
    rules = [
        _allow(sorted(allowed)),
        *(_allow(["personality"], _argument(0, value, "SCMP_CMP_EQ")) for value in _PERSONALITIES),
        *_socket_rules(),
    ]
    denied = (gated | set(DENIED)) - allowed - {"clone", "clone3"}
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(
            _allow(["clone"], _argument(0, _NAMESPACES, "SCMP_CMP_MASKED_EQ")),
        )
        # Its flags are behind a pointer a filter cannot follow; ENOSYS makes libc use clone.
        rules.append(_deny(["clone3"], errno.ENOSYS))
    rules.append(_deny(sorted(denied)))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.ENOSYS,
        "architectures": list(_ARCHES.get(arch, ())),
        "syscalls": rules,
    }


def _socket_rules() -> list[dict[str, Any]]:
    """Allow every family but two: the way to the hypervisor, and the kernel's crypto."""
    # Two conditions on one argument are not portable, so each family has its own rule.
    denied = [
        {**_deny(["socket"]), "args": [_argument(0, family, "SCMP_CMP_EQ")]}
        for family in (_AF_ALG, _AF_VSOCK)
    ]
    return denied + [
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [_argument(0, family, "SCMP_CMP_EQ")],
        }
        for family in range(_AF_VSOCK + 6)
        if family not in (_AF_ALG, _AF_VSOCK)
    ]


class _Arg(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Arg),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def program(oci: dict[str, Any]) -> bytes | None:
    """Compile an OCI profile to a filter program; None where libseccomp is missing or refuses."""
    library = _library()
    if library is None:
        return None
    context = library.seccomp_init(_ERRNO | int(oci["defaultErrnoRet"]))
    if not context:
        return None
    try:
        for arch in oci["architectures"]:
            if library.seccomp_arch_add(context, _TOKENS[arch]) not in (0, -errno.EEXIST):
                return None
        library.seccomp_attr_set(context, 8, 2)  # SCMP_FLTATR_CTL_OPTIMIZE: a binary tree
        for rule in oci["syscalls"]:
            if not _add(library, context, rule):
                return None
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            if library.seccomp_export_bpf(context, fd) != 0:
                return None
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: dict[str, Any]) -> bool:
    action = _ALLOW
    if rule["action"] == "SCMP_ACT_ERRNO":
        action = _ERRNO | int(rule["errnoRet"])
    args = rule.get("args", [])
    array = (_Arg * max(len(args), 1))()
    for place, arg in enumerate(args):
        array[place] = _Arg(
            arg["index"], _OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0)
        )
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:  # newer than the library, or of another architecture: ENOSYS anyway
            continue
        code = library.seccomp_rule_add_array(context, action, number, len(args), array)
        if code not in (0, -errno.EEXIST, -errno.EACCES, -errno.EDOM):
            return False
    return True


# Before the program, whose jumps are relative: ENOSYS for call 102 of i386, whatever comes after.
_NO_SOCKETCALL: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 0, 3, 0x40000003),  # is it i386?
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 1, 102),  # is it socketcall?
        (0x06, 0, 0, _ERRNO | errno.ENOSYS),
    )
)


@functools.lru_cache(maxsize=64)
def compiled(capabilities: frozenset[str], arch: str, *, socketcall: bool = True) -> str | None:
    """Return the program, base64, as crun's annotation takes it; None = use the JSON form."""
    code = program(profile(capabilities, arch, socketcall=socketcall))
    if code and not socketcall and arch == "amd64":
        code = _NO_SOCKETCALL + code
    return base64.b64encode(code).decode() if code else None
