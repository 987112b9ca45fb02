// SPDX-License-Identifier: GPL-2.0-or-later
// What option values may look like, as the agent checks them (agent/model/quantities.py, entries.py, daemon_values.py).
// A check gives '' for a good value, else what is wrong and what is expected. Pure: the forms call it on each key stroke,
// and the agent has the last word.
'use strict';
'require baseclass';

const INT64_MAX = 9223372036854775807n;
const SIZE = /^(\d+(?:\.\d+)?) ?(?:([kmgtp])i?b?|b)?$/i;
const SIZE_POWER = { k: 1n, m: 2n, g: 3n, t: 4n, p: 5n };
const DURATION = /^(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))+$/;
const NUMBER = /^\d+(?:\.\d+)?$/;
const CPUS = /^(?:\d+\.?\d*|\.\d+)$/;
const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;
const USB = /^usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(?::[^:/]+)?(?::(\/[^:]*)(?::([rwm]+))?)?$/;
const TCP = /^tcp:\/\/(?:\[([^\]]*)\]|([^:[\]/]*)):(\d{1,5})\/?$/;
const PROPAGATION = [ 'shared', 'rshared', 'slave', 'rslave', 'private', 'rprivate' ];

function expected(what) {
	return _('expected: %s').format(what);
}

function isIPv4(text) {
	return /^(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})$/.test(text) && text.split('.').every(part => +part <= 255);
}

// groups of an IPv6 text without a zone, the tail possibly an IPv4 address
function countGroups(text) {
	if (text === '')
		return 0;

	const groups = text.split(':');
	const last = groups[groups.length - 1];
	const tail = last.includes('.') ? (isIPv4(last) ? 2 : NaN) : 0;

	if (tail)
		groups.pop();

	return groups.every(group => /^[0-9a-fA-F]{1,4}$/.test(group)) ? groups.length + tail : NaN;
}

function isIPv6(text) {
	const [ address, zone, ...more ] = text.split('%');

	if (zone === '' || more.length)
		return false;

	const halves = address.split('::');

	if (halves.length === 1)
		return countGroups(address) === 8;

	return halves.length === 2 && !halves[0].includes('.') && countGroups(halves[0]) + countGroups(halves[1]) <= 7;
}

function address(text, version) {
	if ((version !== 6 && isIPv4(text)) || (version !== 4 && isIPv6(text)))
		return '';

	return expected(version ? _('an IPv%d address').format(version) : _('an IP address'));
}

function integer(text, minimum, maximum) {
	const good = /^\d{1,19}$/.test(text) && BigInt(text) >= BigInt(minimum) && BigInt(text) <= BigInt(maximum);

	return good ? '' : expected(_('a whole number from %d to %d').format(minimum, maximum));
}

function isAbsolute(path) {
	return path.startsWith('/') && path.split('/').some(part => part !== '');
}

function size(text) {
	const found = SIZE.exec(text);

	if (found && BigInt(found[1].split('.')[0]) * 1024n ** (SIZE_POWER[(found[2] ?? '').toLowerCase()] ?? 0n) <= INT64_MAX)
		return '';

	return expected(_('a size such as 512k, 64m or 2g'));
}

function swap(text) {
	return text === '-1' ? '' : size(text);
}

function duration(text) {
	if (text === '0' || DURATION.test(text))
		return '';

	return expected(NUMBER.test(text) ? _('a unit: did you mean %ss?').format(text) : _('a duration such as 30s, 1m30s or 500ms'));
}

function seconds(text) {
	return NUMBER.test(text) || duration(text) === '' ? '' : expected(_('seconds such as 5, or a duration such as 1m30s'));
}

function cpus(text) {
	return CPUS.test(text) && +text >= 1e-9 && +text < 9.2e9 ? '' : expected(_('a number of CPUs above 0 such as 0.5 or 2'));
}

function portRange(text) {
	const found = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);

	if (!found)
		return null;

	const first = +found[1], last = +(found[2] ?? found[1]);

	return first >= 1 && first <= last && last <= 65535 ? last - first : null;
}

// [ address, host ports, container ports ] of a port without its protocol; null for none
function splitPort(body) {
	const six = /^\[([^\]]*)\]:([^:]*):([^:]*)$/.exec(body);

	if (six)
		return isIPv6(six[1]) ? six.slice(1) : null;

	const parts = body.split(':');

	if (parts.length > 3 || (parts.length === 2 && parts[0] === ''))
		return null;

	if (parts.length === 3 && parts[0] !== '' && !isIPv4(parts[0]))
		return null;

	return [ '', '', ...parts ].slice(-3);
}

function port(text) {
	const [ , body, , protocol ] = /^([^/]*)(\/(.*))?$/s.exec(text);
	const parts = (protocol === undefined || [ 'tcp', 'udp', 'sctp' ].includes(protocol)) ? splitPort(body) : null;
	const inner = parts && portRange(parts[2]);

	if (parts === null || inner === null || (parts[1] !== '' && portRange(parts[1]) === null))
		return expected(_('[ip:]host[-range]:container[-range][/tcp|udp|sctp] such as 8080:80, 127.0.0.1:53:53/udp or [::1]:8080:80'));

	if (parts[1] !== '' && portRange(parts[1]) !== inner)
		return expected(_('as many host ports as container ports'));

	return '';
}

function volumeOption(source, option) {
	if ([ 'ro', 'rw', 'z', 'Z' ].includes(option))
		return true;

	return source.startsWith('/') ? PROPAGATION.includes(option) : option === 'nocopy';
}

function volume(text) {
	const parts = text.split(':');
	const form = expected(_('source:/target[:ro,...] where source is an absolute path or the name of a volume'));

	if (parts.length === 1)
		return isAbsolute(text) ? '' : form;

	if (parts.length > 3 || !(parts[0].startsWith('/') || VOLUME_NAME.test(parts[0])) || !isAbsolute(parts[1]))
		return form;

	if (parts.length === 3 && !parts[2].split(',').every(option => volumeOption(parts[0], option)))
		return expected(_('the options ro, rw, z, Z, with a volume nocopy, with a path (r)shared, (r)slave or (r)private'));

	return '';
}

function tmpfs(text) {
	return isAbsolute(text.split(':')[0]) ? '' : expected('/target[:options] such as /run:size=64m,mode=755');
}

function isPermissions(text) {
	return /^[rwm]{1,3}$/.test(text) && new Set(text).size === text.length;
}

function device(text) {
	const form = expected(_('/dev/host[:/dev/container[:rwm]] or usb:VID:PID[:serial]'));

	if (text.startsWith('usb:')) {
		const found = USB.exec(text);

		return found && isPermissions(found[2] ?? 'rwm') ? '' : form;
	}

	const parts = text.split(':');

	if (parts.length > 3 || !parts[0].startsWith('/'))
		return form;

	if (parts.length === 2 && /^[rwm]+$/.test(parts[1]))
		return isPermissions(parts[1]) ? '' : form;

	if (parts[1] && !parts[1].startsWith('/'))
		return form;

	return isPermissions(parts[2] ?? 'rwm') ? '' : form;
}

function ulimit(text) {
	const found = /^[a-z]+=(-1|\d{1,18})(?::(-1|\d{1,18}))?$/.exec(text);
	const soft = found && BigInt(found[1]), hard = found && BigInt(found[2] ?? found[1]);

	if (found && (hard === -1n || (soft !== -1n && soft <= hard)))
		return '';

	return expected(_('name=soft[:hard] such as nofile=1024:2048'));
}

function restart(text) {
	return /^(?:no|always|unless-stopped|on-failure(?::\d{1,6})?)$/.test(text) ? '' : expected('no, always, unless-stopped, on-failure[:n]');
}

function endpointSetting(setting, seen) {
	const at = setting.indexOf('=');
	const key = setting.slice(0, at), value = setting.slice(at + 1);

	if (at < 0 || seen.has(key))
		return false;

	if (key === 'alias')
		return value !== '';

	seen.add(key);

	return (key === 'ip' && isIPv4(value)) || (key === 'ip6' && isIPv6(value));
}

function network(text) {
	const [ name, ...settings ] = text.split(',');
	const seen = new Set();

	if (name !== '' && !name.includes('=') && settings.every(setting => endpointSetting(setting, seen)))
		return '';

	return expected('name[,alias=a][,ip=192.168.7.2][,ip6=fd00::2]');
}

function dependency(text) {
	return /^[^:]+(?::(?:started|healthy|completed))?$/s.test(text) ? '' : expected('section[:started|healthy|completed]');
}

function waitFor(text) {
	if (text === 'clock' || /^(?:(?:mount|file):\/|device:(?:\/|usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(?::[^:/]+)?$)|interface:.)/.test(text))
		return '';

	return expected('mount:/mnt/sda1, file:/mnt/sda1/.here, device:/dev/ttyUSB0, interface:wan, clock');
}

function extraHost(text) {
	const [ , name, where ] = (text.includes('=') ? /^([^=]*)=(.*)$/s : /^([^:]*):?(.*)$/s).exec(text);

	if (name && (where === 'host-gateway' || address(where.replace(/^\[/, '').replace(/\]$/, '')) === ''))
		return '';

	return expected('name:address such as nas:192.168.1.5, or name:host-gateway');
}

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

const CONTAINER = {
	memory: size, memory_swap: swap, memory_reservation: size, shm_size: size, cpus, restart,
	stop_timeout: seconds, gate: seconds, grace: seconds,
	health_interval: duration, health_timeout: duration, health_start_period: duration,
	ip: text => address(text, 4), ip6: text => address(text, 6),
	port, volume, tmpfs, network, device, ulimit, dns: text => address(text), extra_host: extraHost,
	depends_on: dependency, wait_for: waitFor
};

const GLOBALS = {
	hosts: host, default_shm_size: size, default_ulimits: ulimit, dns: text => address(text), ip: text => address(text),
	mtu: text => integer(text, 68, 65535), shutdown_timeout: text => integer(text, 1, 3600),
	max_concurrent_downloads: text => integer(text, 1, 999), max_concurrent_uploads: text => integer(text, 1, 999)
};

return baseclass.extend({
	// option -> check, by the type of the section; what is not here has its schema's pattern only
	byOption: { container: CONTAINER, globals: GLOBALS },

	// whether a host of dockerd is open to the network without a key of its own
	isOpenHost(text) {
		const found = TCP.exec(text);

		return host(text) === '' && found != null && found[1] !== '::1' && found[2] !== 'localhost' && !(found[2] ?? '').startsWith('127.');
	}
});
