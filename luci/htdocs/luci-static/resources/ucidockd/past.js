// SPDX-License-Identifier: GPL-2.0-or-later
// What the agent did for one section and why, what it will do, and how what runs differs from the settings.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.plan as plan';

function text(value) {
	return value === null || value === undefined || value === '' ? '-' : typeof value === 'string' ? value : JSON.stringify(value);
}

return baseclass.extend({
	// newest first; `note` as the status has it
	row: note => [ format.time(note.at), note.op, note.cause, note.ok ? D.badge('ok', _('done')) : [ D.badge('error', _('failed')), ' ', note.error ] ],

	async render(owner) {
		const [ diff, pending ] = await Promise.all([ L.resolveDefault(calls.agent.diff(owner.section), null), L.resolveDefault(calls.agent.plan(), null) ]);
		const next = plan.ofSection(pending, owner.key);

		return [
			next.length ? [ D.el('h4', {}, _('What happens next')), D.table([ _('What'), _('Why') ], next.map(row => [ row.level ? D.badge(row.level, row.op) : row.op, row.cause ])) ] : '',
			D.el('h4', {}, _('Differences between your settings and what runs')),
			D.table([ _('Option'), _('Your settings'), _('Last applied'), _('Running now') ], (diff?.fields ?? []).map(field => [ field.field, text(field.desired), text(field.applied), text(field.observed) ]),
				diff ? _('None: it runs as you set it.') : _('Not known: the agent or Docker does not answer.')),
			D.el('h4', {}, _('Last operations')),
			D.table([ _('Time'), _('What'), _('Why'), _('Result') ], owner.operations.slice().reverse().map(note => this.row(note)), _('Nothing was done since the agent started.'))
		];
	}
});
