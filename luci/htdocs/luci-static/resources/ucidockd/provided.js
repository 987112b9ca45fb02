// SPDX-License-Identifier: GPL-2.0-or-later
// Named sections that a form shows although the file has none: they are there while the form is, and are not saved unless
// something was put into them. (With LuCI's Add button the form is drawn anew, and what was typed into it is lost.)
'use strict';
'require baseclass';
'require uci';

const Provided = baseclass.extend({
	__init__(config) {
		this.config = config;
		this.wanted = [];
	},

	// a section of `type`: the one that is there, else one called `name` with what `seed` says; gives its name
	want(type, name, seed) {
		const id = uci.sections(this.config, type)[0]?.['.name'] ?? name;

		this.wanted.push({ type, id, seed: seed ?? {} });
		this.add();

		return id;
	},

	add() {
		for (const { type, id, seed } of this.wanted) {
			if (uci.get(this.config, id) !== null)
				continue;

			uci.add(this.config, type, id);
			Object.entries(seed).forEach(([ option, value ]) => uci.set(this.config, id, option, value));
		}
	},

	// before anything is saved
	drop() {
		for (const { id, seed } of this.wanted) {
			const section = uci.get(this.config, id);
			const options = Object.entries(section ?? {}).filter(([ option, value ]) => !option.startsWith('.') && value !== null && value !== undefined);

			if (section && '.create' in section && options.length === Object.keys(seed).length && options.every(([ option, value ]) => seed[option] === value))
				uci.remove(this.config, id);
		}
	}
});

return baseclass.extend({ make: config => new Provided(config) });
