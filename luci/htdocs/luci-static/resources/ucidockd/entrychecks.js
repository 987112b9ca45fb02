// SPDX-License-Identifier: GPL-2.0-or-later
// Checks of entries with settings of their own, as docker's command line takes them in CSV: networks, GPUs, limits of
// devices (agent/model/entries.py). Pure.
'use strict';
'require baseclass';
'require ucidockd.addresses as addresses';
'require ucidockd.quantities as quantities';

const { isIPv4, isIPv6 } = addresses;
const { expected, integer, pair, assignment } = quantities;
const MAC = /^(?:(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|(?:[0-9a-f]{2}-){5}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4})$/i;

// settings of a network of which there may be several, then those that are there once; a hyphen is as good as an underscore
const MANY = {
	alias: value => value !== '', driver_opt: value => value !== '' && !pair(value),
	link_local: value => (isIPv4(value) && value.startsWith('169.254.')) || (isIPv6(value) && /^fe[89ab]/i.test(value))
};
const ONCE = { ip: isIPv4, ip6: isIPv6, mac: value => MAC.test(value), gw_priority: value => (/^-?\d{1,10}$/).test(value) && Math.abs(+value) < 2 ** 31 };
const OTHER_NAMES = { mac_address: 'mac', link_local_ip: 'link_local' };

function endpointSetting(setting, seen) {
	const [ , written, value ] = /^([^=]*)=?(.*)$/s.exec(setting);
	const plain = written.replaceAll('-', '_');
	const key = OTHER_NAMES[plain] ?? plain;

	if (MANY[key])
		return MANY[key](value);

	return !!ONCE[key] && !seen.has(key) && ONCE[key](value) && !!seen.add(key);
}

// the fields of one line of CSV
function fieldsOf(text) {
	return [ ...text.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g) ].map(([ , quoted, plain ]) => quoted?.replaceAll('""', '"') ?? plain);
}

function network(text) {
	const [ name, ...settings ] = fieldsOf(text);
	const seen = new Set();

	if (name !== '' && !name.includes('=') && settings.every(setting => endpointSetting(setting, seen)))
		return '';

	return expected('name[,alias=a][,ip=192.168.7.2][,ip6=fd00::2][,mac=02:42:ac:11:00:02][,link_local=169.254.7.2][,driver_opt=key=value][,gw_priority=1]');
}

function deviceLimit(check, form) {
	return text => {
		const [ , path, limit ] = /^(\/dev\/.+):([^:]*)$/s.exec(text) ?? [];

		return path && check(limit) === '' ? '' : expected(form);
	};
}

const GPU_SETTINGS = [ 'driver', 'count', 'device', 'capabilities', 'options' ];

// several values of `device`, `capabilities` or `options` need no quotes
function gpuSettings(text) {
	const found = {};
	let key = '';

	for (const part of fieldsOf(text)) {
		const [ , name, value ] = /^([^=]*)=(.*)$/s.exec(part) ?? [];

		if (GPU_SETTINGS.includes(name) && !found[name])
			found[key = name] = [ 'driver', 'count' ].includes(name) ? [ value ] : value.split(',');
		else if (GPU_SETTINGS.indexOf(key) > 1)
			found[key].push(part);
		else if (Object.keys(found).length === 0 && name === undefined)
			found.count = [ part ];
		else
			return null;
	}

	return found;
}

function gpus(text) {
	const found = gpuSettings(text) ?? { count: [ '' ] };
	const [ count ] = found.count ?? [ 'all' ];
	const filled = Object.values(found).every(values => values.every(value => value !== ''));
	const good = filled && !(found.count && found.device) && (count === 'all' || integer(count, -1, 2 ** 31 - 1) === '');

	return good && (found.options ?? []).every(option => assignment(option) === '') ? '' : expected(_('all, a number, or device=0,1'));
}

return baseclass.extend({ network, gpus, deviceLimit });
