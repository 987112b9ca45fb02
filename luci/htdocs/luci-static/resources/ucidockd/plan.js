// SPDX-License-Identifier: GPL-2.0-or-later
// The agent's plan (`{operations: [{op, key, cause}]}`) as rows of a table. Pure.
'use strict';
'require baseclass';

const ENDING = [ 'remove', 'delete', 'prune' ];
const BREAKING = [ 'stop', 'recreate', 'swap', 'restart', ...ENDING ];

return baseclass.extend({
	// in the agent's order; `heavy`: something stops or goes away
	rows(plan) {
		return (plan?.operations ?? []).map(({ op, key, cause }) => ({
			op, key, cause, heavy: BREAKING.some(word => String(op).includes(word))
		}));
	},

	ofSection(plan, key) {
		return this.rows(plan).filter(row => row.key === key);
	},

	// one line for the overview
	summary(plan) {
		const rows = this.rows(plan);

		if (!rows.length)
			return _('nothing to do');

		return N_(rows.length, '%d operation pending', '%d operations pending').format(rows.length);
	}
});
