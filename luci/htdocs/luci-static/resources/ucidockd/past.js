// SPDX-License-Identifier: GPL-2.0-or-later
// What the agent did for one section and why, what it will do, how what runs differs from the settings, and the settings of
// before, which can be gone back to.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.effects as effects';
'require ucidockd.format as format';
'require ucidockd.plan as plan';
'require ucidockd.repeats as repeats';
'require ucidockd.sentences as sentences';
'require ucidockd.updates as updates';

function text(value) {
	return value === null || value === undefined || value === '' ? '-' : typeof value === 'string' ? value : JSON.stringify(value);
}

function differences(lines) {
	return lines.length ? D.el('pre', { 'style': 'max-height:40vh;overflow:auto' }, lines.filter(line => !line.startsWith('@@')).map(line => line.startsWith('+') ? D.el('ins', {}, line, '\n') : line.startsWith('-') ? D.el('del', {}, line, '\n') : line + '\n')) : '';
}

// shows what going back would do, and does it
async function askBack(section, version, done) {
	const { options, notes } = await calls.agent.revert(section, version.number, false);
	const outlook = await L.resolveDefault(calls.agent.preview({ containers: { [section]: options } }, false), null);
	const lines = outlook ? effects.ofPlan(outlook) : [];

	D.ask(_('Go back to the settings of %s?').format(format.time(version.at)), [
		lines.length ? D.el('ul', {}, lines.map(line => D.el('li', {}, line.heavy ? D.el('strong', {}, line.text) : line.text))) : _('Running containers are not affected.'),
		_('The settings change like this. What is in volumes stays as it is.'), differences(version.diff), ...notes.map(note => D.el('p', { 'class': 'alert-message notice' }, note))
	], _('Roll back'), async () => {
		await calls.agent.revert(section, version.number, true);
		done();
	});
}

// what the section said before; only for a login that may see it
async function earlier(section, done) {
	const { versions } = await L.resolveDefault(calls.together().agent.history(section), { versions: null });

	if (!versions)
		return '';

	return [
		D.el('h3', {}, _('Earlier settings')),
		D.table([ _('Applied'), _('Changed options'), '' ], versions.map(one => [
			format.time(one.at), one.changed.join(', ') || '-',
			one.is_now ? D.badge('ok', _('now')) : !one.diff.length ? _('the same as now') : D.bar(
				D.always('neutral', _('Compare'), () => D.show(_('From the current settings to those of %s').format(format.time(one.at)), differences(one.diff))),
				D.button('neutral', _('Roll back'), () => askBack(section, one, done)))
		]), _('None yet: settings are kept once they are applied.'))
	];
}

return baseclass.extend({
	// newest first; `note` as the status has it
	row: note => [ format.time(note.at), sentences.verb(note.op), [ D.said(note.cause), note.count > 1 ? [ ' ', D.el('small', {}, repeats.words(note)) ] : '' ], note.ok ? D.badge('ok', _('done')) : [ D.badge('error', _('failed')), ' ', D.said(note.error) ] ],

	// `done` is called when something was changed
	async render(owner, done) {
		const isWriter = L.hasViewPermission(), ask = calls.together().agent, [ diff, pending, versions, described ] = await Promise.all([
			L.resolveDefault(ask.diff(owner.section), null), L.resolveDefault(ask.plan(), null),
			isWriter ? earlier(owner.section, done) : '', isWriter ? L.resolveDefault(ask.describe(owner.section), null) : null
		]);
		const next = plan.ofSection(pending, owner.key);

		return [
			described ? updates.backButton(owner, described.image, done) : '',
			next.length ? [ D.el('h3', {}, _('What happens next')), D.table([ _('What'), _('Why') ], next.map(row => [ row.level ? D.badge(row.level, sentences.verb(row.op)) : sentences.verb(row.op), D.coded(sentences.say(row.cause)) ])) ] : '',
			D.el('h3', {}, _('Differences between your settings and what runs')),
			D.table([ _('Option'), _('Your settings'), _('Last applied'), _('Running now') ], (diff?.fields ?? []).map(field => [ field.field, text(field.desired), text(field.applied), text(field.observed) ]),
				diff ? _('None: it runs as you set it.') : _('Not known: the agent or Docker does not answer.')),
			versions,
			D.el('h3', {}, _('Last operations')),
			D.table([ _('Time'), _('What'), _('Why'), _('Result') ], repeats.group(owner.operations.slice().reverse().map(({ at, op, cause, ok, error }) => ({ at, op, cause, ok, error }))).map(note => this.row(note)), _('Nothing was done since the agent started.'))
		];
	}
});
