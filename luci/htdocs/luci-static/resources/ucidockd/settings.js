// SPDX-License-Identifier: GPL-2.0-or-later
// Which option is where on the page Settings: what is asked for often is shown, the rest folded, internals at the end. Pure.
'use strict';
'require baseclass';

// [section type, options that are shown, options that are folded], by subject; a subject may have several types
const PLACES = {
	general: [ [ 'globals', [ 'data_root', 'live_restore' ], [ 'shutdown_timeout', 'log_level', 'log_format', 'debug', 'storage_driver', 'log_driver', 'log_opts', 'default_shm_size', 'default_ulimits', 'init', 'no_new_privileges', 'seccomp_profile', 'default_cgroupns_mode' ] ] ],
	access: [ [ 'globals', [ 'hosts' ], [ 'allow_insecure_tcp' ] ], [ 'tls', [ 'enabled', 'verify' ], [ 'mode', 'cacert', 'cert', 'key', 'san', 'days', 'renew_days' ] ] ],
	network: [
		[ 'firewall', [ 'blocked_interfaces' ], [ 'device', 'extra_iptables_args', 'enforce' ] ],
		[ 'globals', [ 'bip', 'default_address_pools', 'dns' ], [
			'ipv6', 'fixed_cidr_v6', 'bip6', 'fixed_cidr', 'ip', 'icc', 'ip_masq', 'mtu', 'iptables', 'ip6tables', 'firewall_backend', 'ip_forward', 'ip_forward_no_drop', 'allow_direct_routing',
			'bridge_accept_fwmark', 'dns_opts', 'dns_search', 'host_gateway_ip', 'userland_proxy'
		] ]
	],
	registries: [ [ 'globals', [ 'registry_mirrors', 'insecure_registries' ], [ 'max_concurrent_downloads', 'max_concurrent_uploads', 'max_download_attempts' ] ], [ 'proxies', [], [ 'http_proxy', 'https_proxy', 'no_proxy' ] ] ],
	agent: [ [ 'agent', [ 'enabled', 'remove' ], [ 'listen', 'cert', 'key', 'allowed_host', 'cors_origin', 'allow_exposed', 'allow_container_clients', 'log_level', 'resync', 'resync_deep' ] ] ]
};
const TYPES = [ 'globals', 'agent' ]; // of these, all that is on no place is with the internals
// dockerd follows these, unless its settings are made elsewhere; what says where does always count
const OF_DOCKERD = [ 'globals', 'tls', 'proxies' ], WHERE = [ 'alt_config_file' ];
// subjects that are shown where the agent has such options, by the `x-tab` of their schema
const LATER = [ 'updates', 'notices', 'backup', 'cleanup' ];

return baseclass.extend({
	subjects: () => [ 'general', 'access', 'network', 'registries', ...LATER, 'agent', 'advanced' ],

	titleOf: subject => ({
		general: _('General'), access: _('Access and TLS'), network: _('Network and firewall'), registries: _('Registries'), updates: _('Updates'), notices: _('Notices'), backup: _('Backup'), cleanup: _('Clean-up'),
		agent: _('Agent'), advanced: _('Advanced')
	}[subject]),

	// [event of a notice, what it is], in the order of the schema
	events: () => [
		[ 'degraded', _('something fails') ], [ 'recovered', _('a problem is over') ], [ 'rolledback', _('a change was rolled back') ], [ 'crashloop', _('a container keeps crashing') ],
		[ 'unhealthy', _('a health check fails') ], [ 'update', _('a newer image is available') ], [ 'waiting', _('a container waits for something') ], [ 'diskfull', _('the disk is almost full') ],
		[ 'daemon', _('Docker itself has a problem') ]
	],

	// [[type, shown, folded], ...] of a subject; `schemas`: by type; `elsewhere`: dockerd's settings are not UCI's
	placesOf(subject, schemas, elsewhere) {
		const counts = type => name => !elsewhere || !OF_DOCKERD.includes(type) || WHERE.includes(name);

		return this.allOf(subject, schemas).map(([ type, shown, folded ]) => [ type, shown.filter(counts(type)), folded.filter(counts(type)) ]);
	},

	allOf(subject, schemas) {
		if (subject === 'advanced')
			return TYPES.map(type => [ type, [], this.internals(type, schemas[type]) ]);

		if (LATER.includes(subject)) {
			const names = Object.keys(schemas.agent.properties).filter(name => schemas.agent.properties[name]['x-tab'] === subject);

			return names.length ? [ [ 'agent', names, [] ] ] : [];
		}

		return PLACES[subject];
	},

	internals(type, schema) {
		const placed = Object.values(PLACES).flat().filter(([ one ]) => one === type).flatMap(([ , shown, folded ]) => [ ...shown, ...folded ]);

		return Object.keys(schema.properties).filter(name => !placed.includes(name) && !LATER.includes(schema.properties[name]['x-tab']));
	}
});
