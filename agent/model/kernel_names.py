# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that options contain and that the kernel or engine defines: signals, capabilities, limits, sysctls, security
options.

No engine accepts any other name, but it would only say so after the old container has been stopped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from agent.model.quantities import QuantityError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# moby sys/signal (signal_linux.go); its table for MIPS lacks STKFLT
_SIGNALS = (
    _words(
        """ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP
        TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"""
    )
    | {f"RTMIN+{n}" for n in range(1, 16)}
    | {f"RTMAX-{n}" for n in range(1, 15)}
)
_SIGNAL_MAX = 127  # _NSIG of MIPS, minus one
# linux/capability.h of Linux 6.12
CAPABILITIES = _words(
    """AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER
    FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE
    NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE
    SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"""
)
# docker/go-units, ulimit.go
ULIMITS = _words(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)
# runc libcontainer/configs/validate: sysctls of the IPC and UTS namespaces; all sysctls of the network namespace are
# allowed
_SYSCTLS_IPC = _words(
    """kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni
    kernel.shm_rmid_forced"""
)
_SYSCTL = re.compile(r"[A-Za-z0-9_./:@+-]+")
# moby daemon/daemon_unix.go, parseSecurityOpt; only docker's command line knows systempaths
_SECURITY = ("apparmor", "label", "no-new-privileges", "seccomp", "systempaths", "writable-cgroups")
_BOOLEANS = _words("1 t T true TRUE True 0 f F false FALSE False")  # Go: strconv.ParseBool
_LABELS = ("disable", "user:", "role:", "type:", "level:", "filetype:", "nested")


def near(name: str, known: Collection[str]) -> str:
    """` (did you mean X?)` if a known name is similar, else ""."""
    import difflib  # imported only for mistakes

    found = difflib.get_close_matches(name[:64], sorted(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def parse_signal(text: str) -> str:
    """A stop signal in upper case; a number is kept as it is."""
    upper = text.upper()
    name = upper.removeprefix("SIG")
    if name.isascii() and name.isdigit() and 0 < int(name[:9]) <= _SIGNAL_MAX and upper == name:
        return text
    if name not in _SIGNALS:
        raise QuantityError(f"{text!r} is not a signal{near(name, _SIGNALS)}", "a signal such as SIGTERM")
    return upper


def parse_capability(text: str) -> str:
    """A capability's full name: `net_admin` becomes `CAP_NET_ADMIN`; `ALL` stays."""
    name = text.upper().removeprefix("CAP_")
    if name == "ALL" and text.upper() == "ALL":
        return "ALL"
    if name not in CAPABILITIES:
        wrong = f"{text!r} is not a capability{near(name, CAPABILITIES)}"
        raise QuantityError(wrong, "a name such as NET_ADMIN, or ALL")
    return f"CAP_{name}"


def sysctl_name(name: str) -> str:
    """The name with dots. If a slash comes before any dot, slashes and dots are swapped (sysctl.d(5), and runc does the
    same)."""
    slash, dot = name.find("/"), name.find(".")
    if slash == -1 or (dot != -1 and dot < slash):
        return name
    return name.translate(str.maketrans("./", "/."))


def sysctl_namespace(name: str) -> str:
    """The namespace of a sysctl: `net`, `ipc` or `uts`. Raises QuantityError if it has none."""
    # the kernel also accepts `net/ipv4/ip_forward`
    dotted = sysctl_name(name)
    if dotted.startswith("net.") and _SYSCTL.fullmatch(dotted):
        return "net"
    if dotted in _SYSCTLS_IPC or dotted.startswith("fs.mqueue."):
        return "ipc"
    if dotted == "kernel.domainname":
        return "uts"
    raise QuantityError(
        f"{name!r} belongs to the whole router, a container cannot have its own",
        "net.*, fs.mqueue.* or one of kernel.msg*, kernel.sem and kernel.shm* (others go into /etc/sysctl.conf)",
    )


def parse_security_option(text: str) -> str:
    """The text unchanged. Raises QuantityError if no engine accepts it."""
    if text == "no-new-privileges":
        return text
    # Docker first used a colon, later an equals sign, and still accepts both
    separator = "=" if "=" in text else ":"
    name, _, value = text.partition(separator)
    if name not in _SECURITY or not value:
        raise QuantityError(
            f"{text[:64]!r} is not a security option{near(name, _SECURITY)}",
            "no-new-privileges, seccomp=unconfined, seccomp=/path/profile.json, apparmor=..., label=... or "
            "systempaths=unconfined",
        )
    if name in {"no-new-privileges", "writable-cgroups"} and value not in _BOOLEANS:
        raise QuantityError(f"{value[:64]!r} is not true or false", f"{name}=true or {name}=false")
    if name == "systempaths" and value != "unconfined":
        raise QuantityError(f"{value[:64]!r} is not a value of systempaths", "systempaths=unconfined")
    if name == "label" and not value.startswith(_LABELS):
        raise QuantityError(
            f"{value[:64]!r} is not a label option", "label=disable, or label=type:NAME and the like"
        )
    if name == "seccomp" and value not in {"unconfined", "builtin"} and not value.startswith(("/", "{")):
        raise QuantityError(
            f"{value[:64]!r} is not a seccomp profile", "unconfined, or the absolute path of a JSON file"
        )
    return text


def is_systempaths(text: str) -> bool:
    """Whether a security option is `systempaths=unconfined`."""
    return text in {"systempaths=unconfined", "systempaths:unconfined"}


def seccomp_file(text: str) -> str:
    """The path of the profile in a security option, "" if there is none."""
    found = re.fullmatch(r"seccomp[=:](/.*)", text, re.DOTALL)
    return found[1] if found is not None else ""


def parse_profile(text: str) -> str:
    """A seccomp profile in canonical form, so that equivalent profiles compare equal."""
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError):
        profile = None
    if not isinstance(profile, dict):
        raise QuantityError("it is not a JSON object", "a seccomp profile in JSON")
    return json.dumps(profile, sort_keys=True, separators=(",", ":"))
