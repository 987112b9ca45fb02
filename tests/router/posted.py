# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of configuration that people have posted, in our own words. Each row is one of docs/posted-configurations.md.

In the files {data} is a directory for dockerd's data, {disk} a mount, {socket} the engine's, {own} the user's daemon.json.
All of them run on the stock package, or did not because of one value.
"""

from __future__ import annotations

from dataclasses import dataclass

LAN_WAN = """
config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'
	option forward 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	list network 'wan6'
	option masq '1'

config forwarding
	option src 'lan'
	option dest 'wan'
"""
NETWORK = """
config interface 'lan'
	option device 'br-lan'
	option proto 'static'
	option ipaddr '192.168.1.1'

config interface 'wan'
	option device 'eth1'
	option proto 'dhcp'
"""
STOCK_DOCKER = """
config interface 'docker'
	option device 'docker0'
	option proto 'none'
	option auto '0'

config device
	option type 'bridge'
	option name 'docker0'
"""
STOCK_BLOCK = """
config firewall 'firewall'
	option device 'docker0'
	list blocked_interfaces 'wan'
"""
GLOBALS = "config globals 'globals'\n\toption data_root '{data}'\n\toption log_level 'warn'\n"
ZONE = """
config zone
	option name 'docker'
	list network 'docker'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """`dockerd`: /etc/config/dockerd, None for no such file. `own`: a daemon.json of the user's, at /etc/docker/daemon.json.

    `left_out`: options that are not applied, each told in the status; `rendered`: what daemon.json has to say.
    `blocked`: devices from which nobody comes to containers, by rules of ours. `offline`: dockerd makes no rules, so a
    container's way to the internet is the user's business; on all the others it is open. `stand_in`: it is not the engine
    that was asked for, so nothing is created there before `ucidockd reconcile`. `known_from`: from that version of dockerd
    on nothing is left out.
    """

    dockerd: str | None
    own: str = ""
    network: str = NETWORK
    firewall: str = LAN_WAN
    fstab: str = ""
    dockerman: str = ""
    left_out: tuple[str, ...] = ()
    rendered: tuple[tuple[str, object], ...] = ()
    blocked: tuple[str, ...] = ()
    offline: bool = False
    insecure: bool = False
    unmanaged: bool = False
    stand_in: bool = False
    known_from: tuple[int, int] = (1000, 0)


def options(*lines: str, rest: str = "") -> str:
    return GLOBALS + "".join(f"\t{line}\n" for line in lines) + rest


OWN = '{{"data-root": "{data}", "hosts": ["unix://{socket}"]'
POSTED: dict[str, Posted] = {
    "the stock file": Posted(dockerd=options(rest=STOCK_BLOCK), blocked=("eth1",)),
    "the stock file with everything uncommented": Posted(
        dockerd=options(
            "option iptables '1'",
            "list hosts 'unix:///var/run/docker.sock'",
            "option bip '172.18.0.1/24'",
            "option fixed_cidr '172.18.0.0/24'",
            "option fixed_cidr_v6 'fc00:1::/80'",
            "option ipv6 '1'",
            "option ip '::ffff:0.0.0.0'",
            "list dns '172.18.0.1'",
            "list registry_mirrors 'https://mirror.example'    # a mirror",
            rest=STOCK_BLOCK
            + "\toption extra_iptables_args '--match conntrack ! --ctstate RELATED,ESTABLISHED'\n",
        ),
        rendered=(("bip", "172.18.0.1/24"),),
        blocked=("eth1",),
    ),
    "a globals section without a name": Posted(
        dockerd=options("option bip '172.19.0.1/24'").replace(" 'globals'", "", 1),
        rendered=(("bip", "172.19.0.1/24"),),
    ),
    "two globals sections": Posted(
        dockerd=options() + "\nconfig globals\n\toption log_level 'debug'\n",
        rendered=(("log-level", "warn"),),
        left_out=("another globals section",),
    ),
    "anonymous zone and device": Posted(
        dockerd=options(), network=NETWORK + STOCK_DOCKER, firewall=LAN_WAN + ZONE
    ),
    "interface, device and zone as before OpenWrt 21.02": Posted(
        dockerd=options(),
        network=NETWORK
        + "\nconfig interface 'docker'\n\toption ifname 'docker0'\n\toption proto 'none'\n"
        + "\nconfig device 'docker0'\n\toption type 'bridge'\n\toption name 'docker0'\n\tlist ifname 'docker0'\n",
        firewall=LAN_WAN + ZONE.replace("list network", "option network"),
    ),
    "docker0 in the zone lan": Posted(
        dockerd=options(),
        network=NETWORK
        + "\nconfig interface 'containers'\n\toption device 'docker0'\n\toption proto 'none'\n",
        firewall=LAN_WAN.replace("list network 'lan'", "list network 'lan'\n\tlist network 'containers'"),
    ),
    "a zone by subnet": Posted(
        dockerd=options("option bip '172.31.0.1/24'"),
        firewall=LAN_WAN + ZONE.replace("list network 'docker'", "list subnet '172.16.0.0/12'"),
    ),
    "a daemon.json of the user's": Posted(
        dockerd="config globals 'globals'\n\toption alt_config_file '{own}'\n",
        own=OWN + ', "log-level": "warn"}}',
        unmanaged=True,
    ),
    "a daemon.json of the user's and a stock firewall section": Posted(
        dockerd=options("option alt_config_file '{own}'", "option iptables '0'", rest=STOCK_BLOCK),
        own=OWN + ', "iptables": true}}',
        unmanaged=True,
    ),
    "an alt_config_file that does not exist": Posted(
        dockerd=options("option alt_config_file '/nowhere/daemon.json'"), unmanaged=True
    ),
    "no /etc/config/dockerd": Posted(dockerd=None, own=OWN + "}}", unmanaged=True),
    "an empty /etc/config/dockerd": Posted(dockerd=""),
    "a mirror without a scheme": Posted(
        dockerd=options("list registry_mirrors 'docker.mirror.example'"), left_out=("registry_mirrors",)
    ),
    "a good mirror and a bad one": Posted(
        dockerd=options(
            "list registry_mirrors 'mirror.example'", "list registry_mirrors 'https://mirror.example'"
        ),
        left_out=("registry_mirrors",),
        rendered=(("registry-mirrors", ["https://mirror.example/"]),),
    ),
    "two mirrors in one entry": Posted(
        dockerd=options("list registry_mirrors 'https://a.example,https://b.example'"),
        rendered=(("registry-mirrors", ["https://a.example/", "https://b.example/"]),),
    ),
    "a mirror with a path": Posted(
        dockerd=options("list registry_mirrors 'https://mirror.example/hub'"),
        left_out=("registry_mirrors",),
        known_from=(24, 0),
    ),
    "mirrors copied from a daemon.json": Posted(
        dockerd=options('list registry_mirrors \'["https://a.example", "https://b.example"]\''),
        rendered=(("registry-mirrors", ["https://a.example/", "https://b.example/"]),),
    ),
    "a mirror as an option": Posted(
        dockerd=options("option registry_mirrors 'https://mirror.example'"),
        rendered=(("registry-mirrors", ["https://mirror.example/"]),),
    ),
    "the old preset of hosts": Posted(
        dockerd=options("option hosts 'unix://var/run/docker.sock'", "option remote_endpoint '0'")
    ),
    "several hosts in one option": Posted(
        dockerd=options("option hosts 'unix:///var/run/docker.sock tcp://127.0.0.1:2375'"),
    ),
    "tcp without TLS": Posted(
        dockerd=options("list hosts 'unix:///var/run/docker.sock'", "list hosts 'tcp://0.0.0.0:2375'"),
        insecure=True,
    ),
    "a proxy without a scheme": Posted(
        dockerd=options(rest="\nconfig proxies 'proxies'\n\toption http_proxy '192.168.2.54:1079'\n"),
        left_out=("http_proxy",),
        known_from=(23, 0),
    ),
    "an empty proxies section": Posted(dockerd=options(rest="\nconfig proxies 'proxies'\n")),
    "IPv6 NAT": Posted(
        dockerd=options(
            "option ipv6 '1'",
            "option experimental '1'",
            "option ip6tables '1'",
            "option fixed_cidr_v6 'fc00:100:1::/80'",
        ),
        rendered=(("ip6tables", True), ("fixed-cidr-v6", "fc00:100:1::/80")),
    ),
    "iptables 0": Posted(
        dockerd=options("option iptables '0'", rest=STOCK_BLOCK),
        rendered=(("iptables", False),),
        offline=True,
    ),
    "data on a disk of fstab": Posted(
        dockerd=GLOBALS,
        fstab="config mount\n\toption target '{disk}'\n\toption enabled '1'\n",
    ),
    "a storage driver that this dockerd does not have": Posted(
        dockerd=options("option storage_driver 'ext4'"), left_out=("storage_driver",), stand_in=True
    ),
    "a storage option of another driver": Posted(
        dockerd=options(
            "option storage_driver 'overlay2'",  # 29 looks at no option of its own store
            "list storage_opts 'size=10G'",
            "option bip '172.22.0.1/24'",
        ),
        left_out=("storage_opts",),
        rendered=(("bip", "172.22.0.1/24"),),
        stand_in=True,
    ),
    "a profile that does not exist": Posted(
        dockerd=options("option seccomp_profile '/etc/docker/seccomp.json'", "option bip '172.22.0.1/24'"),
        left_out=("seccomp_profile",),
        rendered=(("bip", "172.22.0.1/24"),),
    ),
    "a cgroup driver of systemd": Posted(
        dockerd=options("list exec_opts 'native.cgroupdriver=systemd'", "option bip '172.22.0.1/24'"),
        left_out=("exec_opts",),
        rendered=(("bip", "172.22.0.1/24"),),
    ),
    "compressed logs without a limit": Posted(
        dockerd=options("list log_opts 'compress=true'", "list log_opts 'max-size=10m'"),
        left_out=("log_opts",),
        rendered=(("log-opts", {"max-size": "10m"}),),
    ),
    "a log option that the driver does not know": Posted(
        dockerd=options("list log_opts 'max-sizes=10m'", "list log_opts 'max-file=3'"),
        left_out=("log_opts",),
        rendered=(("log-opts", {"max-file": "3"}),),
    ),
    "the documented default of a log option": Posted(
        dockerd=options("list log_opts 'max-size=-1'", "list log_opts 'max-file=1'"),
        left_out=("log_opts",),
        rendered=(("log-opts", {"max-file": "1"}),),
    ),
    "limits on logs in one entry": Posted(
        dockerd=options("list log_opts 'max-size=10m,max-file=3'"),
        rendered=(("log-opts", {"max-size": "10m", "max-file": "3"}),),
    ),
    "an address pool as on dockerd's command line": Posted(
        dockerd=options("list default_address_pools 'base=172.30.0.0/16, size=24'"),
        rendered=(("default-address-pools", [{"base": "172.30.0.0/16", "size": 24}]),),
    ),
    "limits on logs": Posted(
        dockerd=options(
            "option log_driver 'json-file'", "list log_opts 'max-size=10m'", "list log_opts 'max-file=3'"
        ),
        rendered=(("log-opts", {"max-size": "10m", "max-file": "3"}),),
    ),
    "a zero for the default": Posted(dockerd=options("option max_concurrent_downloads '0'")),
    "spaces around values": Posted(
        dockerd=options("option bip ' 172.20.0.1/24'"), rendered=(("bip", "172.20.0.1/24"),)
    ),
    "a file from Windows": Posted(dockerd=options("option bip '172.21.0.1/24'").replace("\n", "\r\n")),
    "docker0 with the router's own address": Posted(
        dockerd=options("option bip '10.203.0.1/24'"), left_out=("bip",)
    ),
    "words of forks": Posted(
        dockerd=options(
            "option auto_start '1'", "option wan_mode '0'", "option wait_path '/mnt/x'", "option enabled '1'"
        )
    ),
    "the older name of the mirrors": Posted(
        dockerd=options("list registry_mirror 'https://mirror.example'"), rendered=(("registry-mirrors", []),)
    ),
    "a globals section with another name": Posted(
        dockerd=options("option bip '172.19.0.1/24'").replace("'globals'", "'dockerd'", 1),
        rendered=(("bip", "172.19.0.1/24"),),
    ),
    "double quotes, no quotes, comments in other alphabets": Posted(
        dockerd='# 全局配置 — настройка\nconfig "globals" globals\n option data_root "{data}"\n'
        " option bip 172.19.0.1/24 # 网桥\n\tlist labels 'ключ=living room'",
        rendered=(("bip", "172.19.0.1/24"), ("labels", ["ключ=living room"])),
    ),
    "lists as options, and commas of other keyboards": Posted(
        dockerd=options("option dns '1.1.1.1，8.8.8.8'", "option insecure_registries '10.1.1.1:5000 *'"),
        left_out=("insecure_registries",),
        rendered=(("dns", ["1.1.1.1", "8.8.8.8"]), ("insecure-registries", ["10.1.1.1:5000"])),
    ),
    "limits and pools copied from a daemon.json": Posted(
        dockerd=options(
            'option log_opts \'{"max-size": "10m", "max-file": 3}\'',
            'list default_address_pools \'[{"base": "172.30.0.0/16", "size": 24}]\'',
        ),
        rendered=(
            ("log-opts", {"max-size": "10m", "max-file": "3"}),
            ("default-address-pools", [{"base": "172.30.0.0/16", "size": 24}]),
        ),
    ),
    "IPv6 without a subnet": Posted(
        dockerd=options("option ipv6 '1'", "option bip '172.19.0.1/24'"),
        left_out=("ipv6",),
        rendered=(("bip", "172.19.0.1/24"),),
        known_from=(27, 0),
    ),
    "hosts of a systemd unit": Posted(
        dockerd=options("list hosts 'fd://'", "list hosts 'unix:///var/run/docker.sock'"), left_out=("hosts",)
    ),
    "logs to journald": Posted(dockerd=options("option log_driver 'journald'"), left_out=("log_driver",)),
    "logs to Graylog without its address": Posted(
        dockerd=options("option log_driver 'gelf'", "list log_opts 'tag=router'"),
        left_out=("log_driver", "log_opts"),
    ),
    "logs by a plugin that is not installed": Posted(
        dockerd=options("option log_driver 'loki'"), left_out=("log_driver",)
    ),
    "a limit of files that the kernel refuses": Posted(
        dockerd=options("list default_ulimits 'nofile=99999999999'", "list default_ulimits 'nproc=4096'"),
        left_out=("default_ulimits",),
        rendered=(("default-ulimits", {"nproc": {"Name": "nproc", "Soft": 4096, "Hard": 4096}}),),
    ),
    "a data_root that is a file": Posted(
        dockerd="config globals 'globals'\n\toption data_root '{own}/docker'\n\toption bip '172.19.0.1/24'\n",
        own="{{}}",
        left_out=("data_root",),
        rendered=(("bip", "172.19.0.1/24"),),
        stand_in=True,
    ),
    "userns_remap without ranges of ids": Posted(
        dockerd=options("option userns_remap 'nobody'", "option rootless '1'"),
        left_out=("userns_remap",),
        stand_in=True,
    ),
    "a file that does not parse": Posted(
        dockerd="\ufeff" + options("option bip '172.19.0.1/24"), unmanaged=True
    ),
    "several firewall sections, one without a name": Posted(
        dockerd=options(rest=STOCK_BLOCK + "\nconfig firewall\n\toption blocked_interfaces 'wan lan'\n"),
        blocked=("br-lan", "eth1"),
    ),
    "bridges of containers in the zone by wildcard": Posted(
        dockerd=options(),
        network=NETWORK + STOCK_DOCKER,
        firewall=LAN_WAN + ZONE + "\tlist device 'docker0'\n\tlist device 'br-+'\n",
    ),
    "a zone of another name": Posted(
        dockerd=options(),
        network=NETWORK + STOCK_DOCKER,
        firewall=LAN_WAN + ZONE.replace("name 'docker'", "name 'dockerzone'"),
    ),
    "the same zone twice": Posted(
        dockerd=options(),
        network=NETWORK + STOCK_DOCKER,
        firewall=LAN_WAN + ZONE + ZONE,
    ),
    "docker0 with an address of netifd's": Posted(
        dockerd=options(),
        network=NETWORK + "\nconfig interface 'docker'\n\toption device 'docker0'\n\toption proto 'static'\n"
        "\toption ipaddr '172.17.0.1'\n\toption netmask '255.255.0.0'\n",
    ),
    "network and firewall from Windows": Posted(
        dockerd=options(),
        network=(NETWORK + STOCK_DOCKER).replace("\n", "\r\n"),
        firewall=(LAN_WAN + ZONE).replace("\n", "\r\n"),
    ),
    "a router with IPv6 only": Posted(
        dockerd=options(),
        network="\nconfig interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n"
        "\tlist ip6addr 'fd00::1/64'\n\nconfig interface 'wan6'\n\toption device 'eth1'\n\toption proto 'dhcpv6'\n",
    ),
    "a macvlan beside the LAN": Posted(
        dockerd=options(),
        network=NETWORK
        + "\nconfig device\n\toption name 'mac0'\n\toption type 'macvlan'\n\toption ifname 'br-lan'\n"
        "\nconfig interface 'mac'\n\toption device 'mac0'\n\toption proto 'static'\n\toption ipaddr '192.168.1.250'\n",
    ),
    "values copied from a web page": Posted(
        dockerd=options("option bip ‘172.22.0.1/24’", "list dns '\u200b1.1.1.1\u00a0'"),
        rendered=(("bip", "172.22.0.1/24"), ("dns", ["1.1.1.1"])),
    ),
    "registries by their URLs": Posted(
        dockerd=options(
            "list insecure_registries 'http://192.168.1.2:5000'",
            "list insecure_registries 'https://r.lan/v2/'",
            "list insecure_registries '192.168.1.0/24'",
        ),
        rendered=(("insecure-registries", ["192.168.1.2:5000", "r.lan", "192.168.1.0/24"]),),
    ),
    "TLS by dockerd's own words": Posted(
        dockerd=options(
            "option tlsverify '1'", "option tlscacert '/etc/docker/ca.pem'", "list hosts 'tcp://0.0.0.0:2376'"
        ),
        insecure=True,
    ),
    "containers on the LAN's bridge": Posted(
        dockerd=options("option bridge 'br-lan'", "option bip '172.22.0.1/24'"),
        rendered=(("bip", "172.22.0.1/24"),),
    ),
    "a name server on the router's loopback": Posted(
        dockerd=options("list dns '127.0.0.1'"), rendered=(("dns", ["127.0.0.1"]),)
    ),
    "name servers with a port": Posted(
        dockerd=options("list dns '192.168.1.1#53'", "list dns '192.168.1.1:53'", "list dns '1.1.1.1'"),
        left_out=("dns",),
        rendered=(("dns", ["1.1.1.1"]),),
    ),
    "a globals section of another type": Posted(
        dockerd=options("option bip '172.22.0.1/24'").replace("config globals", "config global"),
        rendered=(("bip", "172.22.0.1/24"),),
    ),
    "yes and no in words": Posted(
        dockerd=options("option userland_proxy 'FALSE'", "option icc 'on'", "option ipv6 'disabled'"),
        rendered=(("userland-proxy", False), ("icc", True), ("ipv6", False)),
    ),
    "a bridge's address without a prefix": Posted(
        dockerd=options("option bip '172.22.0.1'", "option mtu '1400'"),
        left_out=("bip",),
        rendered=(("mtu", 1400),),
    ),
    "blocked interfaces in one option": Posted(
        dockerd=options(rest="\nconfig firewall\n\toption blocked_interfaces 'wan pppoe-wan'\n"),
        blocked=("eth1", "pppoe-wan"),
    ),
    "a daemon.json in place of UCI": Posted(
        dockerd='{ "registry-mirrors": ["https://mirror.example"] }\n', unmanaged=True
    ),
    "an equals sign after an option": Posted(dockerd=options("option bip='172.22.0.1/24'"), unmanaged=True),
    "an empty alt_config_file": Posted(
        dockerd=options("option alt_config_file ''", "option bip '172.22.0.1/24'"),
        rendered=(("bip", "172.22.0.1/24"),),
    ),
    "proxies in capitals": Posted(
        dockerd=options(
            rest="\nconfig proxies 'proxies'\n\toption HTTP_PROXY 'http://10.0.0.1:3128'\n\toption all_proxy 'x'\n"
        )
    ),
    "luci-app-dockerman's section": Posted(
        dockerd=options(
            rest="\nconfig dockerman 'dockerman'\n\toption remote_endpoint '0'\n\tlist ac_allowed_interface 'br-lan'\n"
        )
    ),
    "luci-app-dockerman's own file": Posted(
        dockerd=options(),
        dockerman="config section 'local'\n\tlist daemon_hosts 'unix://var/run/docker.sock'\n",
    ),
}
