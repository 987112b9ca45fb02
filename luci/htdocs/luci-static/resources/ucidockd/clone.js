// SPDX-License-Identifier: GPL-2.0-or-later
// A copy of a section under a name of its own, opened in its form. (LuCI's own copies have no name, and so no identity.)
// `valuesOf` and `freeName` are pure.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.dom as D';

const OWN = [ 'name', 'ip', 'ip6', 'mac_address' ]; // no two can have these
const NAME = /^[A-Za-z0-9_]+$/;

return baseclass.extend({
	// [[option, value], ...] that a copy takes over
	valuesOf(section) {
		return Object.entries(section).filter(([ option, value ]) => !option.startsWith('.') && !OWN.includes(option) && value !== null && value !== undefined);
	},

	freeName(name, taken) {
		const stem = name.replace(/\d+$/, '');

		for (let number = 2; ; number++)
			if (!taken.includes('%s%d'.format(stem, number)))
				return '%s%d'.format(stem, number);
	},

	// `section`: LuCI's, whose dialogue the copy is opened in
	ask(section, id) {
		const { config } = section.map, taken = uci.sections(config).map(one => one['.name']);
		const field = D.el('input', { 'type': 'text', 'value': this.freeName(id, taken) });

		D.ask(_('Clone %s').format(id), [ _('Name of the copy: letters, digits and _'), field ], _('Clone'), () => {
			const name = field.value.trim();

			if (!NAME.test(name) || taken.includes(name))
				throw new Error(_('%s is no name for it: letters, digits and _, and no section has it yet.').format(name));

			uci.add(config, section.sectiontype, name);
			this.valuesOf(uci.get(config, id)).forEach(([ option, value ]) => uci.set(config, name, option, value));
			section.map.addedSection = name; // goes again when its form is left without saving
			window.setTimeout(() => section.renderMoreOptionsModal(name));
		});

		return Promise.resolve();
	}
});
