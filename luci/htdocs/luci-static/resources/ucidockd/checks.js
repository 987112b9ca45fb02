// SPDX-License-Identifier: GPL-2.0-or-later
// What option values may look like, as the agent checks them (agent/model/entries.py, kernel_names.py): sections of
// containers, networks and volumes here, those of dockerd in `daemonchecks`. A check gives '' for a good value, else what
// is wrong and what is expected. Pure: the forms call it on each key stroke, and the agent has the last word.
'use strict';
'require baseclass';
'require ucidockd.addresses as addresses';
'require ucidockd.entrychecks as entries';
'require ucidockd.kernelnames as kernel';
'require ucidockd.quantities as quantities';

const { isIPv4, isIPv6, cidr } = addresses;
const { network, gpus, deviceLimit } = entries;
const { INT64_MAX, expected, integer, pair, assignment, bytesOf, size, memory, swap, healthTime, seconds, wholeSeconds, cpus } = quantities;
const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;
const USB = /^usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(?::[^:/]+)?(?::(\/[^:]*)(?::([rwm]+))?)?$/;
const CDI = /^[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?\/[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?=[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?$/;
const BRIDGE_NAME = 'com.docker.network.bridge.name';
const INTERFACE_NAME_MAX = 15;
// distribution/reference grammar: [registry[:port]/]name[/name...][:tag][@digest]
const IMAGE_PART = '[a-z0-9]+(?:(?:\\.|_{1,2}|-+)[a-z0-9]+)*';
const HOST_PART = '[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?';
// only what looks like a host is one: else the name before the first slash is part of the path
const IMAGE_HOST = '(?=[^/]*[.:A-Z]|localhost/)(?:' + HOST_PART + '(?:\\.' + HOST_PART + ')*|\\[[0-9a-fA-F:]+\\])(?::[0-9]{1,5})?/';
const DIGEST = 'sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}';
const IMAGE = new RegExp('^(?:' + IMAGE_HOST + ')?(' + IMAGE_PART + '(?:/' + IMAGE_PART + ')*)(?::\\w[\\w.-]{0,127})?(?:@(?:' + DIGEST + '))?$');
const IMAGE_PATH_MAX = 255;
const IMAGE_MAX = 512;
const PROPAGATION = [ 'shared', 'rshared', 'slave', 'rslave', 'private', 'rprivate' ];

function address(text, version) {
	if (!text.includes('%') && ((version !== 6 && isIPv4(text)) || (version !== 4 && isIPv6(text))))
		return '';

	return expected(version ? _('an IPv%d address').format(version) : _('an IP address'));
}

// a name server may be one of a link
function server(text) {
	return isIPv6(text) ? '' : address(text);
}

function subnet(text, version) {
	const found = cidr(text);

	if (!found || (version && found.version !== version))
		return expected(version === 6 ? _('an IPv6 subnet such as fd00:17::/64') : _('a subnet such as 172.20.0.0/24'));

	return found.address === found.network ? '' : expected(_('a subnet, not an address inside of one: the bits after the prefix are 0'));
}

function image(text) {
	const found = text.length <= IMAGE_MAX && IMAGE.exec(text);

	return found && found[1].length <= IMAGE_PATH_MAX ? '' : expected(_('an image such as nginx:1.27 or registry.lan:5000/app, in lower-case letters'));
}

function isAbsolute(path) {
	return path.startsWith('/') && path.split('/').some(part => part !== '');
}

function label(text) {
	return pair(text) || (text.startsWith('ucidockd.') ? expected(_('another key: those that begin with ucidockd. are the agent\'s')) : '');
}

function networkOption(text) {
	const [ key, ...value ] = text.split('=');

	return pair(text) || (key === BRIDGE_NAME && value.join('=').length > INTERFACE_NAME_MAX ? expected(_('a bridge name of at most %d characters').format(INTERFACE_NAME_MAX)) : '');
}

function auxAddress(text) {
	return assignment(text) || address(text.slice(text.indexOf('=') + 1));
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
	const parts = (protocol === undefined || [ 'tcp', 'udp', 'sctp' ].includes(protocol.toLowerCase())) ? splitPort(body) : null;
	const inner = parts && portRange(parts[2]);

	if (parts && /^0+$/.test(parts[1])) // as none: any that is free
		parts[1] = '';

	if (parts === null || inner === null || (parts[1] !== '' && portRange(parts[1]) === null))
		return expected(_('[ip:]host[-range]:container[-range][/tcp|udp|sctp] such as 8080:80, 127.0.0.1:53:53/udp or [::1]:8080:80'));

	if (parts[1] !== '' && inner !== 0 && portRange(parts[1]) !== inner)
		return expected(_('as many host ports as container ports'));

	return '';
}

function volumeOption(source, option) {
	if ([ 'ro', 'rw', 'z', 'Z', 'cached', 'delegated', 'consistent' ].includes(option))
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
	const [ target, ...rest ] = text.split(':'), options = rest.join(':');

	if (!isAbsolute(target))
		return expected('/target[:options] such as /run:size=64m,mode=755');

	return options === '' || options.split(',').every(option => (/^[a-z_]+(=.*)?$/).test(option)) ? '' :
		expected('size=64m,mode=1777');
}

function isPermissions(text) {
	return (/^[rwm]{1,3}$/).test(text) && new Set(text).size === text.length;
}

function device(text) {
	const form = expected(_('/dev/host[:/dev/container[:rwm]], usb:VID:PID[:serial] or vendor.com/class=name'));

	if (CDI.test(text))
		return '';

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
	const found = kernel.isLimit(text.split('=', 1)[0]) && /^[a-z]+=(-1|\d{1,18})(?::(-1|\d{1,18}))?$/.exec(text);
	const soft = found && BigInt(found[1]), hard = found && BigInt(found[2] ?? found[1]);

	if (found && (hard === -1n || (soft !== -1n && soft <= hard)))
		return '';

	return expected(_('name=soft[:hard] such as nofile=1024:2048'));
}

function sysctl(text) {
	if (assignment(text))
		return assignment(text);

	return kernel.isSysctl(text.split('=', 1)[0]) ? '' : expected(_('a setting of the container: net.*, fs.mqueue.*, kernel.msg*, kernel.sem or kernel.shm*'));
}

function named(isGood, what) {
	return text => isGood(text) ? '' : expected(what);
}

function restart(text) {
	return (/^(?:no|always|unless-stopped|on-failure(?::\d{1,6})?)$/).test(text) ? '' : expected('no, always, unless-stopped, on-failure[:n]');
}

function exposed(text) {
	const [ ports, protocol, ...more ] = text.split('/');
	const good = !more.length && [ undefined, 'tcp', 'udp', 'sctp' ].includes(protocol?.toLowerCase()) && portRange(ports) !== null;

	return good ? '' : expected(_('a port of the container such as 80, 53/udp or 8000-8010'));
}

function rate(text) {
	return size(text) || (bytesOf(text) ? '' : expected(_('a rate above 0')));
}

function dependency(text) {
	return (/^[^:]+(?::(?:started|healthy|completed))?$/s).test(text) ? '' : expected('section[:started|healthy|completed]');
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

// by the name that a schema gives in `x-check`, maybe with bounds; an option without one has its schema's pattern only
const BY_NAME = {
	image, memory, swap, size, cpus, restart, healthTime, seconds, wholeSeconds, pair, label, sysctl, address, subnet, server, port, volume, tmpfs,
	network, device, ulimit, gpus, dependency, waitFor, extraHost, auxAddress, networkOption, exposed,
	integer: (text, minimum, maximum) => integer(text, minimum, maximum ?? INT64_MAX),
	orZero: (text, minimum, maximum) => text === '0' ? '' : integer(text, minimum, maximum),
	quota: text => [ '0', '-1' ].includes(text) ? '' : integer(text, 1000, 1000000000),
	deviceWeight: deviceLimit(text => integer(text, 10, 1000), '/dev/sda:500'),
	deviceRate: deviceLimit(rate, '/dev/sda:10m'),
	deviceOperations: deviceLimit(text => integer(text, 1, 2 ** 32), '/dev/sda:1000'),
	signal: named(kernel.isSignal, _('a signal such as SIGTERM')),
	capability: named(kernel.isCapability, _('a name such as NET_ADMIN, or ALL')),
	securityOption: named(kernel.isSecurityOption, 'no-new-privileges, seccomp=/path, apparmor=..., label=..., systempaths=unconfined')
};

return baseclass.extend({
	// of use for other sections
	expected, address, subnet, integer, size, bytesOf, seconds, ulimit, assignment,

	byName: BY_NAME
});
