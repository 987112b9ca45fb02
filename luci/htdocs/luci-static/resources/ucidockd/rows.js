// SPDX-License-Identifier: GPL-2.0-or-later
// Entries of lists as rows of fields: `8080:80/udp` is a host port, a container port and a protocol. What a row cannot express
// stays the text that it is: an entry counts as a row only where the row makes the same text again. Pure.
'use strict';
'require baseclass';
'require ucidockd.addresses as addresses';
'require ucidockd.words as words';

const PORTS = /^\d{1,5}(?:-\d{1,5})?$/;
const TITLES = {
	address: () => _('Address'), host: () => _('Host port'), inner: () => _('Container port'), protocol: () => _('Protocol'), source: () => _('Volume or folder'),
	target: () => _('Path in the container'), ro: () => _('Read-only'), more: () => _('Options'), key: () => _('Name'), value: () => _('Value'), device: () => _('Device'),
	rights: () => _('Rights'), network: () => _('Network'), alias: () => _('Other names'), ip: () => _('IPv4 address'), ip6: () => _('IPv6 address'),
	section: () => _('Container'), condition: () => _('Condition'), soft: () => _('Soft limit'), hard: () => _('Hard limit')
};

// what an empty field stands for: never to be taken for a value
const EMPTY = {
	address: () => _('all', 'addresses'), host: () => _('any', 'port'), hard: () => _('as soft', 'limit'), more: () => _('none', 'options'), alias: () => _('none', 'options'), ip: () => _('auto', 'address'), ip6: () => _('auto', 'address')
};

function port(text) {
	const found = /^(?:(?:\[([^\]]+)\]|([\d.]*)):)?(?:([\d-]*):)?([\d-]+)(?:\/(tcp|udp|sctp))?$/.exec(text);

	if (!found)
		return null;

	const [ , six, four, host, inner, protocol ] = found;

	// `8080:80`: what is before the only colon is a port
	return host === undefined && four !== undefined ? { address: '', host: four, inner, protocol: protocol ?? 'tcp' } : { address: six ?? four ?? '', host: host ?? '', inner, protocol: protocol ?? 'tcp' };
}

function portText({ address, host, inner, protocol }) {
	const where = address.includes(':') ? '[%s]:'.format(address) : address && '%s:'.format(address);

	return '%s%s%s%s'.format(where, where || host ? '%s:'.format(host) : '', inner, protocol === 'tcp' ? '' : '/%s'.format(protocol));
}

function volume(text) {
	const parts = text.split(':');

	if (parts.length > 3)
		return null;

	if (parts.length === 1)
		return { source: '', target: text, ro: '0', more: '' };

	const options = parts[2] === undefined ? [] : parts[2].split(',');

	return { source: parts[0], target: parts[1], ro: options[0] === 'ro' ? '1' : '0', more: options.slice(options[0] === 'ro' ? 1 : 0).join(',') };
}

function volumeText({ source, target, ro, more }) {
	const options = [ ro === '1' && 'ro', more ].filter(Boolean).join(',');

	return [ ...source ? [ source ] : [], target, ...options ? [ options ] : [] ].join(':');
}

// `usb:VID:PID[:serial]` is one word of it
function device(text) {
	const usb = /^(usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(?::[^:/]+)?)(?::(\/[^:]*)(?::([rwm]+))?)?$/.exec(text);
	const plain = /^(\/[^:]*)(?::(\/[^:]*)(?::([rwm]+))?)?$/.exec(text) ?? /^([^:/]+\/[^:=]+=.+)$/.exec(text);
	const found = usb ?? plain;

	return found && { device: found[1], target: found[2] ?? '', rights: found[3] ?? '' };
}

function deviceText({ device: source, target, rights }) {
	return [ source, ...target || rights ? [ target || source ] : [], ...rights ? [ rights ] : [] ].join(':');
}

function network(text) {
	const [ name, ...settings ] = text.split(','), row = { network: name, alias: [], ip: '', ip6: '' };

	for (const setting of settings) {
		const at = setting.indexOf('='), key = setting.slice(0, at), value = setting.slice(at + 1);

		if (key === 'alias')
			row.alias.push(value);
		else if (key === 'ip' || key === 'ip6')
			row[key] = value;
	}

	return { ...row, alias: row.alias.join(' ') };
}

function networkText({ network: name, alias, ip, ip6 }) {
	return [ name, ...alias.split(/[\s,]+/).filter(Boolean).map(one => 'alias=%s'.format(one)), ip && 'ip=%s'.format(ip), ip6 && 'ip6=%s'.format(ip6) ].filter(Boolean).join(',');
}

// `left` and `right` of the first `sign`; without `right` neither the sign
function split(sign, left, right, needsRight) {
	return {
		parse(text) {
			const at = text.indexOf(sign);

			return at < 0 ? (needsRight ? null : { [left]: text, [right]: '' }) : { [left]: text.slice(0, at), [right]: text.slice(at + 1) };
		},
		format: row => row[right] === '' && !needsRight ? row[left] : '%s%s%s'.format(row[left], sign, row[right])
	};
}

function limit(text) {
	const found = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text);

	return found && { key: found[1], soft: found[2], hard: found[3] ?? '' };
}

const limits = { columns: [ 'key', 'soft', 'hard' ], needs: [ 'key', 'soft' ], parse: limit, format: ({ key, soft, hard }) => '%s=%s%s'.format(key, soft, hard && ':%s'.format(hard)) };
const pairs = { columns: [ 'key', 'value' ], needs: [ 'key' ], ...split('=', 'key', 'value', true) };
const labels = { columns: [ 'key', 'value' ], needs: [ 'key' ], ...split('=', 'key', 'value', false) };

const KINDS = {
	container: {
		port: { columns: [ 'address', 'host', 'inner', 'protocol' ], needs: [ 'inner' ], first: { protocol: 'tcp' }, parse: port, format: portText },
		volume: { columns: [ 'source', 'target', 'ro', 'more' ], needs: [ 'target' ], first: { ro: '0' }, parse: volume, format: volumeText },
		env: { columns: [ 'key', 'value' ], needs: [ 'key' ], secret: 'value', ...split('=', 'key', 'value', true) },
		network: { columns: [ 'network', 'alias', 'ip', 'ip6' ], needs: [ 'network' ], parse: network, format: networkText },
		device: { columns: [ 'device', 'target', 'rights' ], needs: [ 'device' ], parse: device, format: deviceText },
		depends_on: { columns: [ 'section', 'condition' ], needs: [ 'section' ], ...split(':', 'section', 'condition', false) },
		tmpfs: { columns: [ 'target', 'more' ], needs: [ 'target' ], ...split(':', 'target', 'more', false) },
		extra_host: { columns: [ 'key', 'address' ], needs: [ 'key', 'address' ], ...split(':', 'key', 'address', true) },
		ulimit: limits, sysctl: pairs, log_opt: pairs, label: labels
	},
	network: { aux_address: { columns: [ 'key', 'address' ], needs: [ 'key', 'address' ], ...split('=', 'key', 'address', true) }, opt: labels, label: labels },
	volume: { opt: labels, label: labels },
	globals: { default_ulimits: limits, log_opts: pairs, labels: pairs }
};

const CHOICES = {
	protocol: [ [ 'tcp', 'TCP' ], [ 'udp', 'UDP' ], [ 'sctp', 'SCTP' ] ],
	condition: () => [ [ '', _('has started') ], [ 'started', _('has started') ], [ 'healthy', _('is healthy') ], [ 'completed', _('has finished') ] ],
	rights: () => [ [ '', _('read and write') ], [ 'r', _('read only') ], [ 'rw', 'rw' ], [ 'rwm', 'rwm' ] ]
};

// `:80/tcp` says what `:80` says
function plain(text) {
	return text.replace(/\/tcp$/, '');
}

return baseclass.extend({
	titleOf: column => TITLES[column](),
	emptyOf: column => EMPTY[column]?.() ?? '',
	choicesOf: column => typeof CHOICES[column] === 'function' ? CHOICES[column]() : CHOICES[column],
	isFlag: column => column === 'ro',

	// how the list `name` of a section type is written in rows; undefined where each entry is one text
	of: (type, name) => KINDS[type]?.[name],

	// the row of an entry, null for what rows do not express
	parse(kind, text) {
		const row = text.includes('\n') ? null : kind.parse(text);

		return row && plain(kind.format(row)) === plain(text) ? row : null;
	},

	blank: kind => ({ ...Object.fromEntries(kind.columns.map(column => [ column, '' ])), ...kind.first }),

	isBlank(kind, row) {
		return kind.columns.every(column => row[column] === (kind.first?.[column] ?? ''));
	},

	format: (kind, row) => kind.format(Object.fromEntries(Object.entries(row).map(([ column, value ]) => [ column, column === 'value' ? value : value.trim() ]))),

	// [column, words] of what is wrong in a row as far as the row knows; null where the whole entry is to be checked
	wrong(kind, row) {
		const missing = kind.needs.find(column => row[column].trim() === '');

		if (missing)
			return [ missing, _('%s is missing.').format(this.titleOf(missing)) ];

		for (const column of [ 'host', 'inner' ])
			if (kind.columns.includes(column) && row[column] && !PORTS.test(row[column].trim()))
				return [ column, _('%s must be a number from 1 to 65535, or a range such as 8000-8010.').format(this.titleOf(column)) ];

		if (kind.columns.includes('host') && row.address && !addresses.isIPv4(row.address.trim()) && !addresses.isIPv6(row.address.trim()))
			return [ 'address', _('%s must be an IP address of this router, or empty.').format(this.titleOf('address')) ];

		if (kind.columns.includes('target') && !kind.columns.includes('device') && !row.target.trim().startsWith('/'))
			return [ 'target', _('%s must begin with a slash.').format(this.titleOf('target')) ];

		return null;
	},

	// a command line as one text: an `option` as it is, a list with its words quoted
	commandText(value) {
		return typeof value === 'string' ? value : (value ?? []).map(word => (/^[\w@%+=:,./-]+$/).test(word) ? word : "'%s'".format(word.replaceAll("'", "'\\''"))).join(' ');
	},

	commandIsClosed: text => words.split(text) !== null
});
