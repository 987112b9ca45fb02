// SPDX-License-Identifier: GPL-2.0-or-later
// The agent's plan (`{operations: [{op, key, cause}], pending: [{key, state, level, message}]}`) as rows of a table: what it
// would do now, then all else that is not as declared. Pure.
'use strict';
'require baseclass';

const ENDING = [ 'remove', 'delete', 'prune' ];
const BREAKING = [ 'stop', 'recreate', 'swap', 'restart', ...ENDING ];

// the words for a state; what a later agent says is shown as it says it
const STATES = {
	'in progress': _('in progress'), 'waiting': _('waiting'), 'removal': _('to be removed'), 'held': _('changed manually'), 'disabled': _('disabled'),
	'drift': _('changed outside of ucidockd'), 'failed': _('failed'), 'rolled back': _('rolled back'), 'conflict': _('conflict'), 'invalid': _('invalid'),
	'blocked': _('blocked')
};

function wordsOf({ state, op, retry_in: seconds }) {
	if (state === 'then')
		return _('then %s').format(op);

	if (state === 'retry')
		return _('retry in %d s').format(Math.ceil(seconds ?? 0));

	return STATES[state] ?? state;
}

return baseclass.extend({
	// in the agent's order; `heavy`: something stops or goes away; `level`: of what is not as declared
	rows(plan) {
		return [
			...(plan?.operations ?? []).map(({ op, key, cause }) => ({
				op, key, cause, level: '', heavy: BREAKING.some(word => String(op).includes(word))
			})),
			...(plan?.pending ?? []).map(entry => ({
				op: wordsOf(entry), key: entry.key, cause: entry.message, level: entry.level, heavy: false
			}))
		];
	},

	// not while the agent or the engine is away
	isKnown(plan) {
		return Array.isArray(plan?.operations);
	},

	ofSection(plan, key) {
		return this.rows(plan).filter(row => row.key === key);
	},

	// one line for the overview
	summary(plan) {
		const rows = this.rows(plan);

		if (!rows.length)
			return _('nothing to do');

		const failed = rows.filter(row => row.level === 'error').length;
		const count = rows.length - failed;

		return [
			count && N_(count, '%d operation pending', '%d operations pending').format(count),
			failed && N_(failed, '%d problem', '%d problems').format(failed)
		].filter(Boolean).join(', ');
	}
});
