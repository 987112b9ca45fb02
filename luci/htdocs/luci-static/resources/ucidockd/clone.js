// SPDX-License-Identifier: GPL-2.0-or-later
// What a copy of a section takes over, and a name for it. Pure.
'use strict';
'require baseclass';

const OWN = [ 'name', 'ip', 'ip6', 'mac_address' ]; // no two can have these

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
	}
});
