// SPDX-License-Identifier: GPL-2.0-or-later
// What `ls -lAn` prints (POSIX; GNU, busybox and toybox agree on it), as entries of a folder. Pure.
'use strict';
'require baseclass';

const LINE = (/^([-dlcbps])\S+\s+\d+\s+\d+\s+\d+\s+(\d+|\d+,\s*\d+)\s+(\S+\s+\S+\s+\S+)\s(.*)$/);

return baseclass.extend({
	// [{kind, size, time, name, target}, ...]: folders first, then by name
	entriesOf(text) {
		const found = text.split('\n').map(line => LINE.exec(line)).filter(Boolean).map(([ , kind, size, time, rest ]) => {
			const [ name, target ] = kind === 'l' ? rest.split(' -> ') : [ rest ];

			return { kind, size: kind === '-' ? Number(size) : null, time, name, target: target ?? '' };
		});

		return found.sort((one, other) => (other.kind === 'd') - (one.kind === 'd') || one.name.localeCompare(other.name));
	},

	// a path without `..` and double slashes; `name` is in `folder`
	join(folder, name) {
		const words = [];

		for (const word of '%s/%s'.format(folder, name).split('/'))
			if (word === '..')
				words.pop();
			else if (word && word !== '.')
				words.push(word);

		return '/' + words.join('/');
	},

	// [[name, path], ...] of a path's folders, the root first
	crumbs(path) {
		const words = path.split('/').filter(Boolean);

		return [ [ '/', '/' ], ...words.map((word, index) => [ word, '/' + words.slice(0, index + 1).join('/') ]) ];
	}
});
