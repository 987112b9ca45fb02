// SPDX-License-Identifier: GPL-2.0-or-later
// Sizes, durations and numbers of CPUs as options hold them, as the agent checks them (agent/model/quantities.py). Pure.
'use strict';
'require baseclass';

const INT64_MAX = 9223372036854775807n;
const LONGEST = 64; // characters of a number
const SECONDS_MAX = 1e9;
const MEMORY_MIN = 6 * 1024 * 1024; // the engine's own
const SIZE = /^(\d+(?:\.\d+)?) ?(?:([kmgtp])i?b?|b)?$/i;
const SIZE_POWER = { k: 1n, m: 2n, g: 3n, t: 4n, p: 5n };
const DURATION = /^(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/;
const NUMBER = /^\d+(?:\.\d+)?$/;
const CPUS = /^(?:\d+\.?\d*|\.\d+)$/;
const SECONDS = { ns: 1e-9, us: 1e-6, 'µs': 1e-6, 'μs': 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600 };

function expected(what) {
	return _('expected: %s').format(what);
}

// null for what is not a size
function bytesOf(text) {
	const found = text.length <= LONGEST && SIZE.exec(text);

	if (!found)
		return null;

	const factor = 1024n ** (SIZE_POWER[(found[2] ?? '').toLowerCase()] ?? 0n);

	return BigInt(found[1].split('.')[0]) * factor > INT64_MAX ? null : Math.floor(+found[1] * Number(factor));
}

function size(text) {
	return bytesOf(text) === null ? expected(_('a size such as 512k, 64m or 2g')) : '';
}

function memory(text) {
	const bytes = bytesOf(text);

	return bytes > 0 && bytes < MEMORY_MIN ? expected(_('at least 6m')) : size(text);
}

function swap(text) {
	return text === '-1' ? '' : size(text);
}

// null for what is not a duration
function secondsOf(text) {
	if (text === '0')
		return 0;

	if (text.length > LONGEST || !DURATION.test(text))
		return null;

	const sum = [ ...text.matchAll(/([\d.]+)(\D+)/g) ].reduce((total, [ , number, unit ]) => total + +number * SECONDS[unit], 0);

	return sum < Number(INT64_MAX) / 1e9 ? sum : null;
}

function duration(text) {
	if (secondsOf(text) !== null)
		return '';

	return expected(NUMBER.test(text) ? _('a unit: did you mean %ss?').format(text) : _('a duration such as 30s, 1m30s or 500ms'));
}

function healthTime(text) {
	const found = secondsOf(text);

	return found > 0 && found < 1e-3 ? expected(_('at least 1ms, or 0 for the default')) : duration(text);
}

function seconds(text) {
	return (NUMBER.test(text) ? +text : secondsOf(text) ?? Infinity) <= SECONDS_MAX ? '' : expected(_('seconds such as 5, or a duration such as 1m30s'));
}

function wholeSeconds(text) {
	const whole = NUMBER.test(text) ? +text : secondsOf(text);

	return seconds(text) || (Math.abs(whole - Math.round(whole)) < 1e-9 ? '' : expected(_('whole seconds such as 10')));
}

function cpus(text) {
	return CPUS.test(text) && +text >= 1e-9 && +text < 9223372036.85 ? '' : expected(_('a number of CPUs above 0 such as 0.5 or 2'));
}

function integer(text, minimum, maximum) {
	const good = /^-?\d+$/.test(text) && text.length <= 20 && BigInt(text) >= BigInt(minimum) && BigInt(text) <= BigInt(maximum);

	return good ? '' : expected(maximum === INT64_MAX ? _('a whole number of at least %d').format(minimum) : _('a whole number from %d to %d').format(minimum, maximum));
}

function pair(text, needsValue) {
	const [ key ] = text.split('=', 1);

	return key.trim() !== '' && key === key.trim() && (!needsValue || text.includes('=')) ? '' : expected('key=value');
}

function assignment(text) {
	return pair(text, true);
}

return baseclass.extend({ INT64_MAX, expected, integer, pair, assignment, bytesOf, size, memory, swap, healthTime, seconds, wholeSeconds, cpus });
