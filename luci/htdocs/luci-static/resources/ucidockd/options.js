// SPDX-License-Identifier: GPL-2.0-or-later
// Which option is on which tab of a form. What an option is (type, values, words) says its schema; an option that is in no
// tab here ends up on the last one, so none is missing. Pure.
'use strict';
'require baseclass';

const TABS = {
	container: [
		[ 'general', [ 'enabled', 'state', 'image', 'pull', 'name', 'restart', 'command', 'entrypoint', 'depends_on' ] ],
		[ 'network', [ 'network', 'network_mode', 'port', 'publish_all', 'hostname', 'domainname', 'ip', 'ip6', 'mac_address', 'dns', 'dns_search', 'dns_opt', 'extra_host' ] ],
		[ 'storage', [ 'volume', 'tmpfs', 'read_only', 'shm_size', 'remove_volumes' ] ],
		[ 'environment', [ 'env', 'env_file', 'user', 'group_add', 'workdir', 'tty', 'stdin', 'init', 'stop_signal', 'stop_timeout', 'label' ] ],
		[ 'resources', [ 'memory', 'memory_swap', 'memory_reservation', 'oom_kill_disable', 'cpus', 'cpu_shares', 'cpuset', 'pids_limit', 'blkio_weight', 'ulimit' ] ],
		[ 'devices', [ 'device', 'device_cgroup_rule', 'privileged', 'cap_add', 'cap_drop', 'security_opt', 'sysctl', 'runtime', 'ipc', 'pid', 'userns' ] ],
		[ 'health', [ 'health_cmd', 'health_interval', 'health_timeout', 'health_retries', 'health_start_period', 'log_driver', 'log_opt' ] ],
		[ 'policy', [ 'adopt', 'on_drift', 'rollback', 'gate', 'grace', 'wait_for' ] ]
	],
	network: [
		[ 'general', [ 'name', 'driver', 'parent', 'mode', 'zone', 'internal', 'attachable', 'ipv6', 'adopt' ] ],
		[ 'addresses', [ 'subnet', 'gateway', 'ip_range', 'aux_address' ] ],
		[ 'more', [ 'opt', 'label' ] ]
	],
	volume: [ [ 'general', [ 'name', 'driver', 'opt', 'label', 'adopt' ] ] ],
	auth: [ [ 'general', [ 'serveraddress', 'username', 'password', 'token' ] ] ],
	agent: [
		[ 'general', [ 'enabled', 'daemon', 'docker_host', 'docker_cert_path', 'dockerd', 'dockerd_args', 'workers', 'resync', 'resync_deep', 'log_level', 'remove' ] ],
		[ 'door', [ 'socket', 'listen', 'cert', 'key', 'cors_origin' ] ]
	],
	globals: [
		[ 'general', [ 'data_root', 'storage_driver', 'log_level', 'debug', 'live_restore', 'shutdown_timeout', 'labels' ] ],
		[ 'door', [ 'hosts', 'allow_insecure_tcp' ] ],
		[ 'network', [ 'bip', 'fixed_cidr', 'fixed_cidr_v6', 'ipv6', 'ip', 'mtu', 'dns', 'default_address_pools', 'iptables', 'ip6tables', 'userland_proxy' ] ],
		[ 'registries', [ 'registry_mirrors', 'insecure_registries', 'max_concurrent_downloads', 'max_concurrent_uploads' ] ],
		[ 'defaults', [ 'log_driver', 'log_opts', 'default_shm_size', 'default_ulimits' ] ],
		[ 'compatibility', [ 'alt_config_file', 'api_version', 'ps_flags', '_luci_lan' ] ]
	],
	tls: [ [ 'general', [ 'enabled', 'verify', 'mode', 'san', 'days', 'renew_days', 'cacert', 'cert', 'key' ] ] ],
	proxies: [ [ 'general', [ 'http_proxy', 'https_proxy', 'no_proxy' ] ] ],
	firewall: [ [ 'general', [ 'device', 'blocked_interfaces', 'extra_iptables_args', 'enforce' ] ] ]
};

return baseclass.extend({
	tabs: TABS,

	// [[tab, [option, ...]], ...] of all options of a schema
	tabsOf(type, schema) {
		const listed = new Set(TABS[type].flatMap(([ , names ]) => names));
		const rest = Object.keys(schema.properties).filter(name => !listed.has(name)).sort();
		const tabs = TABS[type].map(([ tab, names ]) => [ tab, names.filter(name => name in schema.properties) ]);

		tabs[tabs.length - 1][1].push(...rest);

		return tabs;
	},

	titleOf(tab) {
		return {
			general: _('General'), network: _('Network'), storage: _('Storage'), environment: _('Environment'), resources: _('Resources'),
			devices: _('Devices and rights'), health: _('Health and log'), policy: _('Policy'), addresses: _('Addresses'), more: _('More'),
			door: _('Access'), registries: _('Registries'), defaults: _('Defaults of containers'), compatibility: _('Compatibility')
		}[tab];
	}
});
