// SPDX-License-Identifier: GPL-2.0-or-later
// A tar archive (POSIX ustar) of a few small texts, made in the page. Pure.
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

function header({ name, mode, size, time }) {
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
	put(156, '0');
	put(257, 'ustar\x0000');
	put(148, octal(block.reduce((sum, byte) => sum + byte, 0), 7) + ' ');

	return block;
}

return baseclass.extend({
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
