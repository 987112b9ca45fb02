// SPDX-License-Identifier: GPL-2.0-or-later
// What values of dockerd's own options and of the agent's may look like (agent/model/dockerd/values.py, listen.py,
// server_names.py). As in `checks`: '' for a good value. Pure.
'use strict';
'require baseclass';
'require ucidockd.addresses as addresses';
'require ucidockd.checks as checks';

const { cidr, isIPv4, isIPv6 } = addresses;
const { expected, subnet, integer } = checks;
const TCP = /^(?:\[([^\]]*)\]|([^:[\]/]*))(?::(\d{0,5}))?\/?$/;
const HOST_AND_PORT = /^(?:\[([^\]]*)\]|[^:[\]/?#@]+)(?::(\d*))?$/;
const REGISTRY = /^(?!-)(?:[A-Za-z0-9._-]+(?<!-)|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?$/;
const POOL = /^(?:base=)?([0-9A-Fa-f:.]+\/\d+),(?:size=)?\/?(\d+)$/, POOL_BACKWARDS = /^size=\/?(\d+),base=([0-9A-Fa-f:.]+\/\d+)$/;
const NEXT_LOG_OPTION = /[\s,;]+(?=(?:max-size|max-file|compress|mode|max-buffer-size|tag|labels|env)\s*=)/;
const DNS_LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
const PART = '[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?';
const DOMAIN = new RegExp(`^(?=.*[A-Za-z])${PART}(?:\\.${PART})*\\.?$`);
const ULIMITS = 'core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack'.split(' ');
const BOOL = /^(?:0|no|off|false|disabled|1|yes|on|true|enabled)$/i;
const INT_MAX = 2147483647;
// lists whose entries never hold a space or a comma: the agent tells several in one apart
const WORDS = {
	globals: [ 'hosts', 'dns', 'dns_opts', 'dns_search', 'default_ulimits', 'exec_opts', 'features', 'insecure_registries', 'storage_opts' ],
	tls: [ 'san' ], firewall: [ 'blocked_interfaces' ]
};

function urlsOf(text) {
	const inner = text.startsWith('[') ? text.slice(1).replace(/\]$/, '') : text;

	return inner.split(/[\s,;|，；、"']+(?=https?:\/\/)/i).map(part => part.replace(/^[ ,;|，；、"']+|[ ,;|，；、"']+$/g, ''));
}

function poolsOf(text) {
	const plain = text.replace(/[{}"']/g, '').replace(/(base|size)\s*[:=]\s*/g, '$1=').replace(/^[ ,;]+|[ ,;]+$/g, '');
	const parts = plain.startsWith('size=') ? [ plain ] : plain.split(/[\s,;]+(?=(?:base=)?[0-9A-Fa-f]*[:.][0-9A-Fa-f:.]*\/\d)/);

	return parts.map(part => part.replace(/^[ ,;]+|[ ,;]+$/g, '').replace(/[\s,;]+/g, ','));
}

const SPLIT = { registry_mirrors: urlsOf, default_address_pools: poolsOf, log_opts: text => text.split(NEXT_LOG_OPTION).map(part => part.trim()) };

// a value as a daemon.json has it, in entries of UCI (agent/uci/decode_daemon.py)
function ofJson(value) {
	if (typeof value === 'string' || typeof value === 'boolean' || Number.isInteger(value))
		return [ String(value) ];

	if (Array.isArray(value))
		return value.flatMap(ofJson);

	if (value === null || typeof value !== 'object')
		throw new TypeError('no entry');

	const { base, size } = value;

	return typeof base === 'string' && Number.isInteger(size) ? [ '%s,%d'.format(base, size) ] : Object.entries(value).flatMap(([ name, item ]) => ofJson(item).map(entry => '%s=%s'.format(name, entry)));
}

// The values that the agent finds in one entry: it takes what the stock script takes, and of a list what people copy from JSON.
function partsOf(type, name, text, isList) {
	if (isList && /^[[{]/.test(text))
		try {
			return ofJson(JSON.parse(text));
		} catch {
			// then it is taken as it is
		}

	const trimmed = text.trim(), quoted = /^(["'])(.+)\1$/s.exec(trimmed), bare = quoted ? quoted[2].trim() : trimmed;
	const split = type === 'globals' ? SPLIT[name] : undefined;
	const parts = split ? split(bare) : WORDS[type]?.includes(name) ? bare.split(/[\s,;]+/) : [ bare ];

	return parts.filter(Boolean);
}

// [, IPv6, IPv4, port] of a TCP host, an incomplete one too; null for none
function tcpOf(text) {
	const found = TCP.exec(text.replace(/^tcp:\/\//, ''));

	const alone = /^(?:\[.*\]|\d+(?:\.\d+){3})$/.test(text);

	return !found || (!text.includes('://') && !found[3] && !alone) || (text.includes('://') && !text.startsWith('tcp://')) ? null : found;
}

function host(text) {
	const wrong = /^(tcp6|inet6|inet|http|https):\/\//.exec(text);

	if (wrong)
		return expected(wrong[1].includes('6') ? 'tcp://[address]:port' : 'tcp://address:port');

	if (text.startsWith('unix://')) {
		const path = (text.slice(7) || '/var/run/docker.sock').replace(/^(?!\/)/, '/');
		const short = new TextEncoder().encode(path).length <= 107;

		return !path.endsWith('/') && !path.includes('://') && short ? '' : expected('unix:///var/run/docker.sock');
	}

	const found = tcpOf(text);
	const good = found && (found[1] !== undefined ? isIPv6(found[1]) && !found[1].includes('%') : [ '', 'localhost' ].includes(found[2]) || isIPv4(found[2]));

	return good && (!found[3] || integer(found[3], 1, 65535) === '') ? '' : expected(_('unix:///path, tcp://address:port or tcp://[IPv6 address]:port'));
}

function dataRoot(text) {
	const path = [];

	for (const part of text.split('/'))
		if (part === '..')
			path.pop();
		else if (part !== '' && part !== '.')
			path.push(part);

	return path.length ? '' : expected(_('an absolute path such as /opt/docker'));
}

// the address of the bridge itself: one that a device can have
function bridge(text, version) {
	const found = cidr(text);
	const good = found?.version === version && found.length <= found.width - 2 && (version === 6 || (found.address !== found.network && found.address !== found.last));

	return good ? '' : expected(version === 4 ? _('an address of its own with the prefix of its subnet, such as 172.18.0.1/24') : _('an IPv6 address of its own with the prefix of its subnet, such as fd00:17::1/64'));
}

// an address inside of a subnet is taken for it
function anySubnet(text, version) {
	const found = cidr(text);

	return found && (!version || found.version === version) ? '' : subnet(text, version);
}

// of docker0: neither a part of the link-local prefix nor more than it, and no IPv4 in IPv6
function fixedSix(text) {
	const found = cidr(text), local = cidr('fe80::/64');
	const meets = found?.version === 6 && found.network <= local.last && found.last >= local.network && (found.network !== local.network || found.length !== 64);
	const isMapped = found?.version === 6 && found.network >> 32n === 0xffffn;

	return anySubnet(text, 6) || (meets || isMapped ? expected(_('an IPv6 subnet such as fd00:17::/64')) : '');
}

function pool(text) {
	const [ , base, prefix ] = POOL.exec(text) ?? [], [ , size, subnetOf ] = POOL_BACKWARDS.exec(text) ?? [];
	const found = cidr(base ?? subnetOf ?? '');

	return found ? integer(prefix ?? size, found.length, found.width - 2) : expected(_('subnet,prefix such as 10.10.0.0/16,24'));
}

function isHostAndPort(text) {
	const found = HOST_AND_PORT.exec(text);

	return found !== null && (found[1] === undefined || isIPv6(found[1])) && (!found[2] || (+found[2] >= 1 && +found[2] <= 65535));
}

function mirror(text) {
	const found = /^https?:\/\/([^/?#]*)(?:\/[^?#]*)?[?#]?$/i.exec(text);

	return found && isHostAndPort(found[1]) && !/[\s\\^`{|}]/.test(found[1]) ? '' : expected('http(s)://host[:port][/path]');
}

function proxy(text) {
	const complete = /^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(text) ? text : `http://${text}`;
	const found = /^(?:https?|socks5h?):\/\/(?:[^/?#]*@)?([^/?#@]*)/i.exec(complete);

	return found && isHostAndPort(found[1]) ? '' : expected(_('a URL such as http://proxy.lan:3128'));
}

function noProxy(text) {
	return (/[^\s,;]/).test(text) ? '' : expected(_('names and subnets separated by commas'));
}

function registry(text) {
	const given = text.replace(/^https?:\/\//i, '').replace(/\/$/, ''), host = given.split('/')[0];

	// a path, as of the API or of an image, is left out; behind an address it is meant to be a subnet's
	if (given.includes('/') && (/^(?:[0-9.]+|[0-9a-f:]*:[0-9a-f:]*)$/i).test(host))
		return anySubnet(given);

	const found = REGISTRY.exec(host);

	if (isIPv6(host) && !host.includes('%'))
		return '';

	return found && (!found[1] || integer(found[1], 1, 65535) === '') ? '' : expected(_('host[:port] or a subnet, without http://'));
}

function logDriver(text) {
	return (/[:/]/).test(text) || (/^[A-Za-z0-9][A-Za-z0-9._-]*$/).test(text) ? '' : expected(_('a driver such as json-file, or a plugin as name:tag'));
}

// dockerd starts with any, and then no container can be created
function logOption(text) {
	const [ name, ...rest ] = text.split('='), value = rest.join('=');

	if (name === 'max-size')
		return checks.size(value);

	if (name === 'max-file')
		return integer(value, 1, INT_MAX);

	return name === 'compress' && !BOOL.test(value) ? expected('compress=true') : checks.assignment(text);
}

function defaultUlimit(text) {
	return checks.ulimit(text) || (ULIMITS.includes(text.split('=')[0]) ? '' : expected(ULIMITS.join(', ')));
}

function daemonLabel(text) {
	return (/^(?:com\.docker|io\.docker|org\.dockerproject)\./i).test(text) ? expected(_('a key of your own: this one is reserved for Docker')) : '';
}

function feature(text) {
	const [ name, ...value ] = text.split('=');
	const good = /^[A-Za-z0-9._-]+$/.test(name) && (!value.length || BOOL.test(value.join('=')));

	return good ? '' : expected(_('name=1 or name=0'));
}

function execOption(text) {
	const [ key, ...value ] = text.split('=');

	return key.toLowerCase() === 'native.cgroupdriver' && [ 'cgroupfs', 'systemd' ].includes(value.join('=')) ? '' : expected('native.cgroupdriver=cgroupfs');
}

function remap(text) {
	return (/^[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?$/).test(text) ? '' : expected(_('default, or user[:group]'));
}

function seccomp(text) {
	return [ 'builtin', 'unconfined' ].includes(text) || text.startsWith('/') ? '' : expected(_('builtin, unconfined, or the absolute path of a profile'));
}

function cgroup(text) {
	const good = /^\/?[A-Za-z0-9_.:@-]+(?:\/[A-Za-z0-9_.:@-]+)*$/.test(text) && !text.split('/').includes('..');

	return good ? '' : expected(_('a name such as docker, or a path such as /services/docker'));
}

function mark(text) {
	const found = /^(0[xX][0-9a-fA-F]{1,8}|\d{1,10})(?:\/(0[xX][0-9a-fA-F]{1,8}|\d{1,10}))?$/.exec(text);
	const isSmall = part => part === undefined || (/^0\d/.test(part) && +part !== 0) || +part < 2 ** 32;

	return found && isSmall(found[1]) && isSmall(found[2]) ? '' : expected(_('mark[/mask] such as 0x1/0x3'));
}

function domain(text) {
	return text === '.' || (DOMAIN.test(text) && text.length <= 254) ? '' : expected(_('a domain such as lan, or . for none'));
}

function count(text) {
	return integer(text, 0, INT_MAX);
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

// as in `checks`: by the name in `x-check` of a schema
const BY_NAME = {
	host, dataRoot, bridge, pool, anySubnet, fixedSix, mark, mirror, registry, daemonLabel, shmSize, defaultUlimit, domain, feature, execOption, remap, seccomp,
	logDriver, logOption, cgroup, count, serverName, proxy, noProxy, listen
};

return baseclass.extend({
	byName: BY_NAME,

	partsOf,

	// whether a host of dockerd is open to the network without a key of its own
	isOpenHost(text) {
		return partsOf('globals', 'hosts', text).some(one => {
			const found = tcpOf(one);

			return host(one) === '' && found != null && found[1] !== '::1' && ![ '', 'localhost' ].includes(found[2]) && !(found[2] ?? '').startsWith('127.');
		});
	}
});
