// SPDX-License-Identifier: GPL-2.0-or-later
// Words of a command line, as a POSIX shell splits them: quotes, backslashes, nothing else (Python's shlex.split). Pure.
'use strict';
'require baseclass';

const TOKEN = /'([^']*)'|"((?:[^"\\]|\\[^])*)"|\\([^])|(\s+)|([^\s'"\\]+)/gy;

return baseclass.extend({
	// the words; null when a quote is not closed
	split(text) {
		const found = [];
		let word = null;

		TOKEN.lastIndex = 0;

		while (TOKEN.lastIndex < text.length) {
			const token = TOKEN.exec(text);

			if (!token)
				return null;

			const [ , single, double, escaped, blank, plain ] = token;

			if (blank === undefined) {
				word = (word ?? '') + (single ?? double?.replace(/\\(["\\])/g, '$1') ?? escaped ?? plain);
			} else if (word !== null) {
				found.push(word);
				word = null;
			}
		}

		return word === null ? found : [ ...found, word ];
	}
});
