// SPDX-License-Identifier: GPL-2.0-or-later
// The load of the containers in a list, live: a `stats` stream for each that runs, as many as LIMIT at a time.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.live as live';
'require ucidockd.stats as stats';

const LIMIT = 12; // each is work for the engine once a second

const Loads = baseclass.extend({
	__init__() {
		this.known = new Map();
	},

	// the node that shows the load of one; it stays the same while the list is drawn anew
	cell(id) {
		return this.known.get(id)?.node ?? '';
	},

	// follows these, and no others
	follow(ids) {
		const wanted = new Set(ids.slice(0, LIMIT));

		for (const [ id, one ] of this.known)
			if (!wanted.has(id)) {
				one.stream.stop();
				this.known.delete(id);
			}

		for (const id of wanted)
			if (!this.known.has(id))
				this.known.set(id, this.begin(id));
	},

	begin(id) {
		const node = D.el('span', { 'style': 'white-space:nowrap' }), series = stats.make(1);
		const stream = live.follow('stats', { container: id }, item => {
			if (item.name !== 'stats' || !stats.ofRunning(item.json))
				return;

			const { cpu, memory } = series.push(item.json);

			D.fill(node, '%s %%'.format(cpu.toFixed(1)), D.el('br', {}), D.el('small', {}, format.bytes(memory)));
		});

		return { node, stream };
	}
});

return baseclass.extend({ make: () => new Loads() });
