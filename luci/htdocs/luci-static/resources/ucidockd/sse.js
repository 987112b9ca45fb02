// SPDX-License-Identifier: GPL-2.0-or-later
// Server-sent events from pieces of text (WHATWG HTML, "Server-sent events"), as far as uhttpd writes them. Pure.
'use strict';
'require baseclass';

const LIMIT = 2 * 1024 * 1024;

function event(block) {
	const found = { name: 'message', data: [] };

	for (const line of block.split('\n')) {
		const [ , field, value ] = /^([^:]*):? ?(.*)$/s.exec(line);

		if (field === 'event')
			found.name = value;
		else if (field === 'data')
			found.data.push(value);
	}

	return { name: found.name, data: found.data.join('\n') };
}

const Parser = baseclass.extend({
	__init__() {
		this.rest = '';
	},

	// the events that are complete with this piece
	push(text) {
		const blocks = (this.rest + text).replace(/\r\n/g, '\n').split('\n\n');

		this.rest = blocks.pop();

		if (this.rest.length > LIMIT)
			throw new Error('an event of more than %d characters'.format(LIMIT));

		return blocks.map(event).filter(found => found.data !== '');
	}
});

return baseclass.extend({ make: () => new Parser() });
