// SPDX-License-Identifier: GPL-2.0-or-later
// Numbers and times as people read them. Pure.
'use strict';
'require baseclass';

const UNITS = [ 'B', 'KiB', 'MiB', 'GiB', 'TiB' ];
const KINDS = [ [ 31, 'd' ], [ 27, 'l' ], [ 25, 'p' ], [ 24, 's' ], [ 21, 'c' ], [ 26, 'b' ] ]; // bits of os.FileMode
const SPANS = [ [ 86400, count => _('%d d').format(count) ], [ 3600, count => _('%d h').format(count) ], [ 60, count => _('%d min').format(count) ], [ 1, count => _('%d s').format(count) ] ];

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

	// seconds in the largest whole unit
	span(seconds) {
		const span = Math.max(0, Math.floor(seconds)), [ unit, words ] = SPANS.find(([ length ]) => span >= length) ?? SPANS[SPANS.length - 1];

		return words(Math.floor(span / unit));
	},

	// how long ago `when` was; both in seconds since 1970
	age(when, now) {
		if (!(when > 0))
			return '-';

		return this.span(now - when);
	},

	// whether the name of a variable says that nobody should look over one's shoulder
	isSecret: name => (/PASS|SECRET|TOKEN|KEY|CREDENTIAL/i).test(name),

	shortId(id) {
		return String(id ?? '').replace(/^sha256:/, '').slice(0, 12);
	},

	// a text with its ids, such as the name of an anonymous volume, cut
	cut: text => String(text ?? '').replace(/\b(?:sha256:)?([0-9a-f]{12})[0-9a-f]{52}\b/g, '$1'),

	// the engine names an image that lost its tag by its whole digest
	image(name) {
		return String(name ?? '').startsWith('sha256:') ? this.shortId(name) : name;
	},

	// the engine's header X-Docker-Container-Path-Stat (base64 of JSON; `mode` as Go's os.FileMode), in words
	fileStat(header) {
		const bytes = Uint8Array.from(atob(header), char => char.charCodeAt(0));
		const { name, size, mode, mtime, linkTarget } = JSON.parse(new TextDecoder().decode(bytes));
		const [ , kind ] = KINDS.find(([ bit ]) => Math.floor(mode / 2 ** bit) % 2 === 1) ?? [ 0, '-' ];
		const rights = [ ...'rwxrwxrwx' ].map((letter, place) => (mode >> (8 - place)) & 1 ? letter : '-').join('');

		return [ kind + rights, kind === '-' ? this.bytes(size) : '', this.time(Date.parse(mtime) / 1000), linkTarget ? '%s -> %s'.format(name, linkTarget) : name ].filter(text => text).join('  ');
	},

	// the file system that a path is on, {size, avail}; `mounts` as the `luci` object's getMountPoints gives them
	mountOf(path, mounts) {
		const around = mounts.filter(({ mount }) => mount === '/' || path === mount || path.startsWith(mount + '/'));

		return around.sort((one, other) => other.mount.length - one.mount.length)[0];
	},

	time(seconds) {
		return seconds > 0 ? new Date(seconds * 1000).toLocaleString() : '-';
	}
});
