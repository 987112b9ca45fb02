// SPDX-License-Identifier: GPL-2.0-or-later
// IP addresses and subnets, read as Python's ipaddress reads them (the agent's checks). Pure.
'use strict';
'require baseclass';

function isIPv4(text) {
	return (/^(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})$/).test(text) && text.split('.').every(part => +part <= 255);
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

	return groups.every(group => (/^[0-9a-fA-F]{1,4}$/).test(group)) ? groups.length + tail : NaN;
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

// the bits of an address
function valueOf(text) {
	if (isIPv4(text))
		return text.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n);

	const four = /^(.*:)([^:]*\.[^:]*)$/.exec(text);
	const six = four ? four[1] + [ 16n, 0n ].map(shift => ((valueOf(four[2]) >> shift) & 0xffffn).toString(16)).join(':') : text;
	const [ head, tail ] = six.split('::').map(half => half.split(':').filter(Boolean));
	const groups = tail ? [ ...head, ...Array(8 - head.length - tail.length).fill('0'), ...tail ] : head;

	return groups.reduce((sum, group) => sum * 65536n + BigInt('0x' + group), 0n);
}

// the length that a mask such as 255.255.0.0 stands for, or one turned round; null for none
function lengthOf(mask) {
	const all = (1n << 32n) - 1n, value = isIPv4(mask) ? valueOf(mask) : -1n;
	const hosts = [ all ^ value, value ].find(bits => bits >= 0n && (bits & (bits + 1n)) === 0n);

	return hosts === undefined ? null : 32 - hosts.toString(2).replace(/^0$/, '').length;
}

return baseclass.extend({
	isIPv4,
	isIPv6,

	// {version, address, length, network, last} of `address/bits`, bits of hosts allowed; null for what is none
	cidr(text) {
		const [ address, mask, ...more ] = text.split('/');
		const version = isIPv4(address) ? 4 : isIPv6(address) && !address.includes('%') ? 6 : 0;
		const width = version === 4 ? 32 : 128;
		const length = /^\d+$/.test(mask ?? '') ? +mask : version === 4 ? lengthOf(mask ?? '') : null;

		if (!version || more.length || length === null || length > width)
			return null;

		const value = valueOf(address), hosts = (1n << BigInt(width - length)) - 1n;

		return { version, address: value, length, width, network: value & ~hosts, last: value | hosts };
	}
});
