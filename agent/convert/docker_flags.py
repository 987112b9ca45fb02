# SPDX-License-Identifier: GPL-2.0-or-later
"""The flags of `docker container run`, and the option of a `container` section that does the same.

The list is of docker/cli, `cli/command/container/opts.go` and `run.go`. A row without an option says why: the reason ends
the sentence "is left out: ...". `make manual` writes docs/docker-run-flags.md from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag. `switch`: it takes no value, except as `--flag=false`. `remark`: what docs/docker-run-flags.md adds."""

    name: str
    option: str = ""
    reason: str = ""
    remark: str = ""
    short: str = ""
    switch: bool = False


def _flag(name: str, option: str, short: str = "", *, remark: str = "") -> Flag:
    return Flag(name=name, option=option, short=short, remark=remark)


def _switch(name: str, option: str, short: str = "", *, remark: str = "") -> Flag:
    return Flag(name=name, option=option, short=short, switch=True, remark=remark)


def _no(name: str, reason: str, short: str = "", *, switch: bool = False) -> Flag:
    return Flag(name=name, reason=reason, short=short, switch=switch)


_TERMINAL = "it is about the terminal that starts the container"
_WINDOWS = "it is for Windows only"

FLAGS = (
    _flag("add-host", "extra_host"),
    _flag("annotation", "annotation", remark="needs Docker 24.0"),
    _no("attach", _TERMINAL, "a"),
    _flag("blkio-weight", "blkio_weight"),
    _flag("blkio-weight-device", "blkio_weight_device"),
    _flag("cap-add", "cap_add"),
    _flag("cap-drop", "cap_drop"),
    _flag("cgroup-parent", "cgroup_parent"),
    _flag("cgroupns", "cgroupns"),
    _no("cidfile", "the agent keeps the ids of containers itself"),
    _no("cpu-count", _WINDOWS),
    _no("cpu-percent", _WINDOWS),
    _flag("cpu-period", "cpu_period", remark="not together with `cpus`, which is easier to read"),
    _flag("cpu-quota", "cpu_quota", remark="not together with `cpus`, which is easier to read"),
    _flag("cpu-rt-period", "cpu_rt_period", remark="cgroup v1 and a kernel with `RT_GROUP_SCHED`"),
    _flag("cpu-rt-runtime", "cpu_rt_runtime", remark="cgroup v1 and a kernel with `RT_GROUP_SCHED`"),
    _flag("cpu-shares", "cpu_shares", "c"),
    _flag("cpus", "cpus"),
    _flag("cpuset-cpus", "cpuset"),
    _flag("cpuset-mems", "cpuset_mems"),
    _no("detach", "containers of sections always run in the background", "d", switch=True),
    _no("detach-keys", _TERMINAL),
    _flag("device", "device", remark="also CDI names (`vendor.com/class=name`) and `usb:VID:PID`"),
    _flag("device-cgroup-rule", "device_cgroup_rule"),
    _flag("device-read-bps", "device_read_bps"),
    _flag("device-read-iops", "device_read_iops"),
    _flag("device-write-bps", "device_write_bps"),
    _flag("device-write-iops", "device_write_iops"),
    _no("disable-content-trust", "docker has removed it", switch=True),
    _flag("dns", "dns"),
    _flag("dns-opt", "dns_opt"),
    _flag("dns-option", "dns_opt"),
    _flag("dns-search", "dns_search"),
    _flag("domainname", "domainname"),
    _flag("entrypoint", "entrypoint"),
    _flag("env", "env", "e"),
    _flag("env-file", "env_file"),
    _flag("expose", "expose"),
    _flag("gpus", "gpus", remark="`device=0,1` needs no quotes inside; or a CDI name in `list device`"),
    _flag("group-add", "group_add"),
    _flag(
        "health-cmd", "health_cmd", remark="as a `list`, the program and its arguments, run without a shell"
    ),
    _flag("health-interval", "health_interval"),
    _flag("health-retries", "health_retries"),
    _flag("health-start-interval", "health_start_interval", remark="needs Docker 25.0"),
    _flag("health-start-period", "health_start_period"),
    _flag("health-timeout", "health_timeout"),
    _no("help", "it sets nothing", switch=True),
    _flag("hostname", "hostname", "h"),
    _switch("init", "init"),
    _switch("interactive", "stdin", "i", remark="without a terminal that attaches to it"),
    _no("io-maxbandwidth", _WINDOWS),
    _no("io-maxiops", _WINDOWS),
    _flag("ip", "ip"),
    _flag("ip6", "ip6"),
    _flag("ipc", "ipc"),
    _no("isolation", _WINDOWS),
    _no("kernel-memory", "the kernel and docker have removed it"),
    _flag("label", "label", "l"),
    _no("label-file", "write its lines as `list label`"),
    _no("link", "put both containers into one `list network`: their names resolve there"),
    _flag("link-local-ip", "network", remark="`link_local=` in the entry"),
    _flag("log-driver", "log_driver"),
    _flag("log-opt", "log_opt"),
    _flag(
        "mac-address",
        "mac_address",
        remark="of the first network; `mac=` in the entry of any (of others than the first: Docker 25.0)",
    ),
    _flag("memory", "memory", "m"),
    _flag("memory-reservation", "memory_reservation"),
    _flag("memory-swap", "memory_swap"),
    _flag(
        "memory-swappiness",
        "memory_swappiness",
        remark="cgroup v1 only: with cgroup v2 the engine ignores it",
    ),
    _flag("mount", "volume", remark="binds, volumes and, with `list tmpfs`, memory"),
    _flag("name", "name"),
    _flag("net", "network"),
    _flag("net-alias", "network", remark="`alias=` in the entry"),
    _flag(
        "network",
        "network",
        remark="also its settings: `driver_opt=key=value`, `gw_priority=` (Docker 28.0), `link_local=`, `mac=`",
    ),
    _flag("network-alias", "network", remark="`alias=` in the entry"),
    _switch("no-healthcheck", "health_cmd", remark="`option health_cmd 'none'`"),
    _switch("oom-kill-disable", "oom_kill_disable"),
    _flag("oom-score-adj", "oom_score_adj"),
    _flag("pid", "pid"),
    _flag("pids-limit", "pids_limit"),
    _flag("platform", "platform"),
    _switch("privileged", "privileged"),
    _flag("publish", "port", "p", remark="a host port of `0`, as none, leaves it to the engine"),
    _switch("publish-all", "publish_all", "P"),
    _flag("pull", "pull"),
    _no("quiet", _TERMINAL, "q", switch=True),
    _switch("read-only", "read_only"),
    _flag("restart", "restart"),
    _no("rm", "a section keeps its container; remove the section to remove the container", switch=True),
    _flag("runtime", "runtime"),
    _flag("security-opt", "security_opt"),
    _flag("shm-size", "shm_size"),
    _no("sig-proxy", _TERMINAL, switch=True),
    _flag("stop-signal", "stop_signal"),
    _flag("stop-timeout", "stop_timeout"),
    _flag("storage-opt", "storage_opt"),
    _flag("sysctl", "sysctl"),
    _flag("tmpfs", "tmpfs"),
    _switch("tty", "tty", "t"),
    _flag("ulimit", "ulimit"),
    _no(
        "use-api-socket",
        "it hands the engine and your registry logins to the container; if you want that, bind /var/run/docker.sock",
        switch=True,
    ),
    _flag("user", "user", "u"),
    _flag("userns", "userns"),
    _flag("uts", "uts"),
    _flag("volume", "volume", "v"),
    _flag(
        "volume-driver",
        "volume_driver",
        remark="of volumes without a section; others have `option driver` in their `volume` section",
    ),
    _flag(
        "volumes-from",
        "volumes_from",
        remark="a section (or the name of a container that is not declared), with `:ro` where wanted",
    ),
    _flag("workdir", "workdir", "w"),
)

BY_NAME = {flag.name: flag for flag in FLAGS}
BY_LETTER = {flag.short: flag for flag in FLAGS if flag.short}
