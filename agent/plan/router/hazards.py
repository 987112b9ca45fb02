# SPDX-License-Identifier: GPL-2.0-or-later
"""What a container can do to the router because of its section, and what the router's web server allows web pages to do.
Pure.

Nothing is refused: the user decides. `agent.router.hazards` shows the findings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from posixpath import commonpath

from agent.model.quantities import TRUE_WORDS
from agent.model.resources import Container, Volume, VolumeSpec
from agent.uci.router import text, words
from agent.uci.syntax import Package, Section

# path -> (what it is, whether reading it or connecting to it is enough); changing any of them, or anything in it, gives
# control of the router
HOST_PATHS: Mapping[str, tuple[str, bool]] = {
    "/var/run/ubus": ("ubus", True),
    "/run/containerd": ("the engine's socket", True),
    "/etc/dropbear": ("SSH keys", True),
    "/etc/ssh": ("SSH keys", True),
    "/root/.ssh": ("SSH keys", True),
    "/etc/shadow": ("passwords", True),
    "/etc/passwd": ("passwords", False),
    **dict.fromkeys(
        ("/etc/crontabs", "/etc/init.d", "/etc/rc.d", "/etc/rc.local", "/etc/hotplug.d", "/etc/uci-defaults"),
        ("what the router runs", False),
    ),
    **dict.fromkeys(
        (
            "/bin",
            "/sbin",
            "/lib",
            "/usr/bin",
            "/usr/sbin",
            "/usr/lib",
            "/usr/libexec",
            "/www",
            "/usr/share/rpcd",
        ),
        ("the router's programs", False),
    ),
    **dict.fromkeys(("/overlay", "/boot"), ("the router's file system", False)),
    **dict.fromkeys(("/proc", "/sys"), ("the kernel's settings", False)),
}
_ROOT = "the router's whole file system"
_ALL = "ALL"
# each is enough to leave the container
_CAPABILITIES = ("CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_DAC_READ_SEARCH", _ALL)
_BESIDE_PID_HOST = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")  # enough where the host's processes can be seen
# memory, whole disks and flash; partitions are left out because they may hold plain data
_DEVICES = re.compile(
    r"/dev(/(mem|kmem|port|sd[a-z]+|vd[a-z]+|hd[a-z]+|nvme\d+n\d+|mmcblk\d+|mtd(block)?\d+(ro)?|ubi\d+(_\d+)?))?"
)
_DEVICE_RULE = re.compile(r"([ab] .*|c (\*|1):(\*|1|2|4) .*)")  # devices(5): 1:1 mem, 1:2 kmem, 1:4 port
_READ_ONLY, _BIND = frozenset({"ro"}), frozenset({"bind", "rbind"})


def host_control(
    container: Container,
    volumes: Iterable[Volume],
    precious: Mapping[str, tuple[str, bool]],
    resolve: Callable[[str], str],
) -> tuple[str, ...]:
    """What gives the container control of the router, such as `/var/run/docker.sock (the engine's socket)` or
    `privileged`.

    `precious`: resolved path -> (what it is, whether reading it is enough); "" for a harmless folder in a precious one.
    `resolve` follows symbolic links.
    """
    spec = container.spec
    found = ["privileged"] if spec.privileged else []
    has = frozenset(spec.cap_add)
    found += [name for name in _CAPABILITIES if name in has]
    # these give access to the router's own processes or network only if the container shares them
    if spec.pid == "host":
        found += [f"pid host with {name}" for name in _BESIDE_PID_HOST if name in has]
    if spec.network_mode == "host" and "CAP_NET_ADMIN" in has:
        found.append("network_mode host with CAP_NET_ADMIN (the router's network and firewall)")
    declared = {name: volume.spec for volume in volumes for name in (volume.section, volume.name)}
    for mount in spec.mounts:
        source, read_only = mount.source, mount.read_only
        if not mount.is_bind:
            # a volume of the driver local may be a disguised bind mount: type none, o=bind, device=/
            source, is_read_only = _bound(declared.get(source))
            read_only = read_only or is_read_only
        if source and (what := _reached(resolve(source), precious, read_only=read_only)):
            found.append(f"{source} ({what})")
    for device in spec.devices:
        if device.host.startswith("/") and _DEVICES.fullmatch(resolve(device.host)):
            found.append(f"device {device.host}")
    found += [f"devices {rule}" for rule in spec.device_cgroup_rules if _DEVICE_RULE.fullmatch(rule)]
    return tuple(dict.fromkeys(found))


def looked_at(container: Container, volumes: Iterable[Volume]) -> tuple[str, ...]:
    """The paths that `host_control` passes to `resolve`."""
    bound = [_bound(volume.spec)[0] for volume in volumes]
    mounts = [mount.source for mount in container.spec.mounts if mount.is_bind]
    devices = [device.host for device in container.spec.devices if device.host.startswith("/")]
    return tuple(path for path in (*bound, *mounts, *devices) if path)


def _bound(volume: VolumeSpec | None) -> tuple[str, bool]:
    """The directory that a volume binds ("" if it is not a bind mount), and whether it is read-only (mount(8))."""
    if volume is None or volume.driver != "local":
        return "", False
    options = dict(volume.options)
    words = frozenset(options.get("o", "").split(","))
    device = options.get("device", "")
    is_bind = device.startswith("/") and (words & _BIND or options.get("type") in ("bind", "none"))
    return (device, bool(words & _READ_ONLY)) if is_bind else ("", False)


def _reached(source: str, precious: Mapping[str, tuple[str, bool]], *, read_only: bool) -> str:
    if source == "/":
        return _ROOT
    # all that is in the source, and of the paths that the source is in the nearest
    reached = [path for path in precious if commonpath((source, path)) == source]
    reached += sorted((path for path in precious if commonpath((source, path)) == path), key=len)[-1:]
    found = {
        what
        for what, by_reading in map(precious.__getitem__, reached)
        if what and (by_reading or not read_only)
    }
    return ", ".join(sorted(found))


def plain_luci(uhttpd: Package) -> bool:
    """Whether LuCI is available over plain HTTP: then its session cookie is sent to every port of the router's address."""
    return any(
        section.type == "uhttpd" and words(section, "listen_http") and not _is_on(section, "redirect_https")
        for section in uhttpd.sections
    )


def shared_origin(container: Container) -> tuple[str, ...]:
    """The container's ports on the router's own addresses that a browser can open."""
    ports = (port for port in container.spec.ports if port.protocol == "tcp" and not port.is_local)
    return tuple(dict.fromkeys(f"{port.host_text}/tcp" for port in ports))


def open_to_pages(uhttpd: Package) -> tuple[str, ...]:
    """The uhttpd sections whose /ubus answers pages of any origin with the user's session (`ubus_cors`)."""
    return tuple(
        section.name
        for section in uhttpd.sections
        if section.type == "uhttpd" and _is_on(section, "ubus_cors")
    )


def _is_on(section: Section, option: str) -> bool:
    return text(section, option) in TRUE_WORDS
