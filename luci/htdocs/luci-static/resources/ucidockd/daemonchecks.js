// SPDX-License-Identifier: GPL-2.0-or-later
// What values of dockerd's own options and of the agent's may look like (agent/model/daemon_values.py, listen.py,
// server_names.py). As in `checks`: '' for a good value. Pure.
'use strict';
'require baseclass';
'require ucidockd.addresses as addresses';
'require ucidockd.checks as checks';

const { cidr, isIPv4, isIPv6 } = addresses;
const { expected, address, subnet, integer, seconds } = checks;
const TCP = /^tcp:\/\/(?:\[([^\]]*)\]|([^:[\]/]*)):(\d{1,5})\/?$/;
const HOST_AND_PORT = /^(?:\[([^\]]*)\]|[^:[\]/?#@]+)(?::(\d*))?$/;
const REGISTRY = /^(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?$/;
const DNS_LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;

function host(text) {
	const wrong = /^(tcp6|inet6|inet|http|https):\/\//.exec(text);

	if (wrong)
		return expected(wrong[1].includes('6') ? 'tcp://[address]:port' : 'tcp://address:port');

	if (text.startsWith('unix://')) {
		const path = text.slice(7);
		const short = new TextEncoder().encode(path).length <= 107;

		return path.startsWith('/') && !path.endsWith('/') && short ? '' : expected('unix:///var/run/docker.sock');
	}

	const found = TCP.exec(text);
	const good = found && (found[1] !== undefined ? isIPv6(found[1]) && !found[1].includes('%') : found[2] === 'localhost' || isIPv4(found[2]));

	return good && integer(found[3], 1, 65535) === '' ? '' : expected(_('unix:///path, tcp://address:port or tcp://[IPv6 address]:port'));
}

function dataRoot(text) {
	const parts = text.split('/').filter(Boolean);

	return text.startsWith('/') && parts.length && !parts.some(part => part === '.' || part === '..') ? '' : expected(_('an absolute path such as /opt/docker'));
}

// the address of the bridge itself: one that a device can have
function bip(text) {
	const found = cidr(text);
	const good = found?.version === 4 && found.length <= 30 && found.address !== found.network && found.address !== found.last;

	return good ? '' : expected(_('an address of its own with the prefix of its subnet, such as 172.18.0.1/24'));
}

function pool(text) {
	const [ base, prefix, ...more ] = text.split(',');
	const found = cidr(base);

	if (!found || prefix === undefined || more.length)
		return expected(_('subnet,prefix such as 10.10.0.0/16,24'));

	return subnet(base) || integer(prefix, found.length, found.width - 2);
}

function isHostAndPort(text) {
	const found = HOST_AND_PORT.exec(text);

	return found !== null && (found[1] === undefined || isIPv6(found[1])) && (!found[2] || (+found[2] >= 1 && +found[2] <= 65535));
}

function mirror(text) {
	const found = /^https?:\/\/([^/]*)\/?$/.exec(text);

	return found && isHostAndPort(found[1]) ? '' : expected('http(s)://host[:port]');
}

function proxy(text) {
	const found = /^[a-z][a-z0-9+]*:\/\/(?:[^/?#]*@)?([^/?#@]*)/.exec(text);

	return found && isHostAndPort(found[1]) ? '' : expected(_('a URL such as http://proxy.lan:3128'));
}

function registry(text) {
	if (text.includes('/'))
		return subnet(text);

	const found = REGISTRY.exec(text);

	return found && (!found[1] || integer(found[1], 1, 65535) === '') ? '' : expected(_('host[:port] or a subnet, without http://'));
}

function shmSize(text) {
	return checks.bytesOf(text) ? '' : expected(_('a size such as 64m'));
}

// a name that a certificate can carry
function serverName(text) {
	const name = text.toLowerCase().replace(/\.$/, ''), labels = name.replace(/^\*\./, '').split('.');
	const isName = name.length <= 253 && !/^\d+$/.test(labels[labels.length - 1]) && labels.every(label => DNS_LABEL.test(label));

	return isIPv4(text) || (isIPv6(text) && !text.includes('%')) || isName ? '' : expected(_('a DNS name or an IP address'));
}

function listen(text) {
	const [ , inner, port ] = /^(.*):(\d{1,5})$/s.exec(text) ?? [ '', '', '' ];
	const good = inner.startsWith('[') && inner.endsWith(']') ? isIPv6(inner.slice(1, -1)) : isIPv4(inner);

	return good && +port <= 65535 ? '' : expected(_('address:port or [address]:port, such as 192.168.1.1:2380'));
}

const GLOBALS = {
	hosts: host, data_root: dataRoot, bip, fixed_cidr: text => subnet(text, 4), fixed_cidr_v6: text => subnet(text, 6), default_address_pools: pool,
	registry_mirrors: mirror, insecure_registries: registry, log_opts: checks.assignment,
	default_shm_size: shmSize, default_ulimits: checks.ulimit, dns: text => address(text), ip: text => address(text),
	mtu: text => integer(text, 68, 65535), shutdown_timeout: text => integer(text, 1, 3600),
	max_concurrent_downloads: text => integer(text, 1, 999), max_concurrent_uploads: text => integer(text, 1, 999)
};

const days = text => integer(text, 1, 3650);

return baseclass.extend({
	byOption: {
		globals: GLOBALS, tls: { san: serverName, days, renew_days: days }, proxies: { http_proxy: proxy, https_proxy: proxy },
		agent: { listen, resync: seconds, resync_deep: seconds }
	},

	// whether a host of dockerd is open to the network without a key of its own
	isOpenHost(text) {
		const found = TCP.exec(text);

		return host(text) === '' && found != null && found[1] !== '::1' && found[2] !== 'localhost' && !(found[2] ?? '').startsWith('127.');
	}
});
