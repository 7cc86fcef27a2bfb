"""What a model server, or the build of a package's environment, may do to the processes outside: nothing.

Called in the process that becomes it, between fork and exec. Standard library only: the warden imports it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct

PR_CAPBSET_DROP = 24
LOOKING = {"CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38}.values()
PR_SET_NO_NEW_PRIVS = 38
# Linux: include/uapi/linux/landlock.h; the numbers of the calls are the same on every machine.
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL = 1, 2
LANDLOCK_ACCESS_FS_MAKE_BLOCK, LANDLOCK_ACCESS_FS_REFER = 1 << 11, 1 << 13
LANDLOCK_RULE_PATH_BENEATH = 1
RLIMIT_LOCKS = 10
"""Linux keeps it with every process, hands it on to all that it starts, and has no use for it since 2.4."""
MARK_BITS = 62


def confine() -> bool:
    """Close every process outside to this one and to all that it starts, whoever their user is; whether it is so.

    Linux' Landlock: from inside, ``/proc/<pid>/environ``, ``mem``, ``fd`` ... of a process outside cannot be read, and
    no debugger attached to it; from Linux 6.12 on nothing outside gets a signal either. Before that the rules must be
    about files: making block devices is refused. Root would still be allowed to look by its capabilities, which are
    given up. No program gets more rights than this process has, by sudo for example.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in LOOKING:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        call = libc.syscall
        call.restype = ctypes.c_long
        version = call(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
        return bool(version >= 2) and _restricted(libc, _rules(call, version))
    except (OSError, AttributeError):
        return False  # not Linux


def _rules(call: ctypes._NamedFuncPointer, version: int) -> int:
    """A descriptor of the rules; negative if there can be none."""
    if version >= 6:
        scopes = struct.pack("=QQQ", 0, 0, LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL)
        return int(call(LANDLOCK_CREATE_RULESET, scopes, len(scopes), 0))
    # Files that are linked or renamed into another folder are refused unless the rules speak of them.
    handled = struct.pack("=Q", LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_REFER)
    rules = int(call(LANDLOCK_CREATE_RULESET, handled, len(handled), 0))
    if rules >= 0:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        allowed = struct.pack("=Qi", LANDLOCK_ACCESS_FS_REFER, root)
        if call(LANDLOCK_ADD_RULE, rules, LANDLOCK_RULE_PATH_BENEATH, allowed, 0):
            os.close(rules)
            rules = -1
        os.close(root)
    return rules


def _restricted(libc: ctypes.CDLL, rules: int) -> bool:
    if rules < 0:
        return False
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done: bool = libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return done


def mark(number: int) -> None:
    """Mark this process, and all that it will start, with a number: a limit that limits nothing.

    Sessions, environments and open files are left behind easily; nobody changes this one.
    """
    try:
        resource.setrlimit(RLIMIT_LOCKS, (number, resource.getrlimit(RLIMIT_LOCKS)[1]))
    except (OSError, ValueError):
        pass  # not Linux


def has_mark(pid: int, number: int) -> bool:
    """Whether a process is marked with a number."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            return any(line.split()[3:4] == [b"%d" % number] for line in file if line.startswith(b"Max file locks"))
    except OSError:
        return False
