// SPDX-License-Identifier: GPL-2.0-or-later
// The last lines of a log that comes in pieces. What containers write is hostile: escape sequences and control characters
// are dropped here, and the pages put lines into text nodes only. Pure.
'use strict';
'require baseclass';

const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])/g;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const LINE_LIMIT = 4096;
const STAMPED = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z ?([^]*)$/;

function clean(text) {
	const line = text.replace(/\r$/, '').split('\r').pop();

	return line.replace(ESCAPES, '').replace(CONTROLS, '').slice(0, LINE_LIMIT);
}

// [ "seconds.nanoseconds" as the engine's `since` takes it, text ] of a line that the engine stamped
function unstamped(line) {
	const [ , second, fraction, text ] = STAMPED.exec(line) ?? [];

	return second ? [ '%d.%s'.format(Date.parse(second + 'Z') / 1000, (fraction ?? '').padEnd(9, '0')), text ] : [ '', line ];
}

const LogBuffer = baseclass.extend({
	__init__(limit) {
		this.limit = limit ?? 2000;
		this.lines = [];
		this.dropped = 0;
		this.rest = {};
		this.last = '';
		this.seen = '';
	},

	// The log begins again at `last`, the stamp of the newest line: what comes up to there is known.
	resume() {
		this.rest = {};
		this.seen = this.last;
	},

	line(source, piece) {
		const [ at, text ] = unstamped(piece);

		if (at && at <= this.seen)
			return [];

		if (at > this.last)
			this.last = at;

		return [ { source, at, text: clean(text) } ];
	},

	// `source` is stdout or stderr: each has its own unfinished line. Gives the lines that became complete.
	push(source, text) {
		const pieces = ((this.rest[source] ?? '') + text).split('\n');

		this.rest[source] = pieces.pop().slice(-LINE_LIMIT);

		const fresh = pieces.flatMap(piece => this.line(source, piece));

		const kept = fresh.slice(-this.limit);
		const over = Math.max(0, this.lines.length + kept.length - this.limit);

		this.dropped += over + fresh.length - kept.length;
		this.lines.splice(0, over);
		this.lines.push(...kept);

		return kept;
	},

	// at the end of a stream: what had no line feed is a line, too
	flush() {
		return Object.keys(this.rest).flatMap(source => this.rest[source] ? this.push(source, '\n') : []);
	},

	search(term) {
		const wanted = String(term).toLowerCase();

		return wanted ? this.lines.filter(line => line.text.toLowerCase().includes(wanted)) : this.lines;
	}
});

return baseclass.extend({ clean, make: limit => new LogBuffer(limit) });
