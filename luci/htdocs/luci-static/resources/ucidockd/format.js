// SPDX-License-Identifier: GPL-2.0-or-later
// Numbers and times as people read them. Pure.
'use strict';
'require baseclass';

const UNITS = [ 'B', 'KiB', 'MiB', 'GiB', 'TiB' ];
const SPANS = [ [ 86400, 'd' ], [ 3600, 'h' ], [ 60, 'min' ], [ 1, 's' ] ];

return baseclass.extend({
	bytes(count) {
		if (!Number.isFinite(count) || count < 0)
			return '-';

		let power = 0;

		while (count >= 1024 && power < UNITS.length - 1) {
			count /= 1024;
			power++;
		}

		return '%s %s'.format(power && count < 100 ? count.toFixed(1) : Math.round(count), UNITS[power]);
	},

	// how long ago `when` was; both in seconds since 1970
	age(when, now) {
		if (!(when > 0))
			return '-';

		const span = Math.max(0, Math.floor(now - when));
		const [ unit, name ] = SPANS.find(([ seconds ]) => span >= seconds) ?? SPANS[SPANS.length - 1];

		return '%d %s'.format(Math.floor(span / unit), name);
	},

	shortId(id) {
		return String(id ?? '').replace(/^sha256:/, '').slice(0, 12);
	},

	// the engine names an image that lost its tag by its whole digest
	image(name) {
		return String(name ?? '').startsWith('sha256:') ? this.shortId(name) : name;
	},

	time(seconds) {
		return seconds > 0 ? new Date(seconds * 1000).toLocaleString() : '-';
	}
});
