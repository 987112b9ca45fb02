// SPDX-License-Identifier: GPL-2.0-or-later
// How often a leader asks for packets (`circle`): each time costs the router a request, and a container in a crash loop is news
// several times a second. News that a page shows can wait; a log, a console, a job, and what a stream begins with cannot. Pure.
//
// `make` takes `now` () -> ms, and `timer` {set}.
'use strict';
'require baseclass';

const NEWS = [ 'change', 'event', 'stats', 'ping' ], MUCH = 48; // items: after 64 the agent waits, so there may be more
const SPAN_MS = 2000; // two reads begin in it, so that what is rare is shown at once

const Pace = baseclass.extend({
	__init__(parts) {
		this.parts = parts;
		this.last = [ 0, 0 ];
	},

	// a read begins
	begin() {
		this.last = [ this.last[1], this.parts.now() ];
	},

	// until it is time to ask for more than these packets
	async rest(packets) {
		const items = packets.flatMap(packet => packet.items), span = this.last[0] + SPAN_MS - this.parts.now();

		if (span > 0 && items.length < MUCH && items.every(item => NEWS.includes(item.name)))
			await new Promise(done => {
				this.hurry = done;
				this.parts.timer.set(done, span);
			});
	},

	// something is waited for
	hurry() {}
});

return baseclass.extend({ make: parts => new Pace(parts) });
