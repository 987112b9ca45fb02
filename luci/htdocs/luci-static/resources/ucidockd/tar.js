// SPDX-License-Identifier: GPL-2.0-or-later
// Tar archives (POSIX ustar, long names and large sizes as pax records) made in the page: of a few small texts, or of one file
// of any size, which is not read for that. Pure.
'use strict';
'require baseclass';

const BLOCK = 512;

function padded(size) {
	return Math.ceil(size / BLOCK) * BLOCK;
}

// numbers are octal digits with a NUL behind them
function octal(value, width) {
	return Math.floor(value).toString(8).padStart(width - 1, '0') + '\0';
}

function header({ name, mode, size, time, kind }) {
	const block = new Uint8Array(BLOCK), encoder = new TextEncoder();
	const put = (offset, text) => block.set(encoder.encode(text), offset);

	if (encoder.encode(name).length > 100)
		throw new Error('a name of more than 100 bytes');

	put(0, name);
	put(100, octal(mode, 8));
	put(108, octal(0, 8));
	put(116, octal(0, 8));
	put(124, octal(size, 12));
	put(136, octal(time, 12));
	put(148, ' '.repeat(8)); // what the checksum counts for itself
	put(156, kind ?? '0');
	put(257, 'ustar\x0000');
	put(148, octal(block.reduce((sum, byte) => sum + byte, 0), 7) + ' ');

	return block;
}

// what does not fit into a header: `<length> <key>=<value>` a line
function records(pairs) {
	const encoder = new TextEncoder();

	return encoder.encode(pairs.map(([ key, value ]) => {
		const rest = encoder.encode(' %s=%s\n'.format(key, value)).length;
		const length = [ 1, 2, 3, 4, 5 ].map(digits => rest + digits).find(sum => String(sum).length === sum - rest);

		return '%d %s=%s\n'.format(length, key, value);
	}).join(''));
}

function archiveOf(name, body, entry) {
	const pairs = [ new TextEncoder().encode(name).length > 100 && [ 'path', name ], entry.size >= 8 ** 11 && [ 'size', String(entry.size) ] ].filter(Boolean);
	const extra = pairs.length ? records(pairs) : new Uint8Array(), filled = new Uint8Array(padded(extra.length));

	filled.set(extra);

	return new Blob([
		...(extra.length ? [ header({ name: 'pax', mode: 0o644, size: extra.length, time: entry.time, kind: 'x' }), filled ] : []),
		header({ ...entry, name: pairs.length ? 'long' : name, size: entry.size < 8 ** 11 ? entry.size : 0 }), body,
		new Uint8Array(padded(entry.size) - entry.size + 2 * BLOCK)
	]);
}

return baseclass.extend({
	// `file` (a File or Blob) as the only entry; gives the archive as a Blob
	ofFile: (name, file, time) => archiveOf(name, file, { mode: 0o644, size: file.size, time }),

	// an empty folder as the only entry; the same
	ofFolder: (name, time) => archiveOf(name + '/', new Blob([]), { mode: 0o755, size: 0, time, kind: '5' }),

	// `files`: [{name, text, mode}, ...]; `time` in seconds since 1970. Gives the archive's bytes.
	make(files, time) {
		const parts = files.flatMap(({ name, text, mode }) => {
			const bytes = new TextEncoder().encode(text), body = new Uint8Array(padded(bytes.length));

			body.set(bytes);

			return [ header({ name, mode, size: bytes.length, time }), body ];
		});
		const archive = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 2 * BLOCK));

		parts.reduce((offset, part) => {
			archive.set(part, offset);

			return offset + part.length;
		}, 0);

		return archive;
	}
});
