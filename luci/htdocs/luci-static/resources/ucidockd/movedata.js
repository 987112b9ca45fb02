// SPDX-License-Identifier: GPL-2.0-or-later
// Moves Docker's data to another folder: what that means first, then a job of the agent, which is followed.
'use strict';
'require baseclass';
'require ucidockd.browse as browse';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.jobs as jobs';
'require ucidockd.sentences as sentences';

function consequences({ source, target, file_system: system, bytes, free, containers, down_s: seconds, resumes, notes }) {
	return [
		bytes == null ? _('Images, containers and volumes are copied from %s to %s (%s, %s free).').format(source, target, system, format.bytes(free))
			: _('Images, containers and volumes, %s, are copied from %s to %s (%s, %s free).').format(format.bytes(bytes), source, target, system, format.bytes(free)),
		resumes ? _('An earlier copy was cut short and is completed.') : '',
		containers.length ? _('These containers keep running during the first copy, and stop while what changed since is copied: %s.').format(containers.join(', ')) : _('No container runs.'),
		seconds == null ? '' : _('They stop for about %d seconds, longer on a slow disk.').format(seconds),
		...notes.map(sentences.say),
		_('If anything fails, the old data is used again. The old data stays in %s until you remove it.').format(source)
	].filter(Boolean);
}

return baseclass.extend({
	button(from, start) {
		return D.el('button', { 'type': 'button', 'class': 'btn cbi-button', 'click': () => this.begin(from, start()) }, _('Move the data'));
	},

	// `target`: as the field has it; the folder is asked for while that is the old one
	begin(from, target) {
		if (target && target.replace(/\/+$/, '') !== from.replace(/\/+$/, ''))
			return D.attempt(() => this.look(target));

		const field = D.el('input', { 'type': 'text', 'placeholder': '/mnt/sda1/docker', 'aria-label': _('New folder') });
		const browser = D.always('neutral', _('Browse'), () => browse.folder(field.value || '/mnt', path => D.attempt(() => this.look(path))));

		return D.ask(_('Move the data'), [ D.el('p', {}, _('An empty folder on the new disk, which needs ext4 or f2fs:')), D.el('p', {}, field, ' ', browser) ], _('Continue'), () => this.look(field.value.trim()));
	},

	async look(target) {
		const found = await calls.agent.move_data_check(target);

		D.ask(_('Move the data to %s?').format(target), consequences(found), _('Move the data'), () => this.move(target));
	},

	async move(target) {
		const place = D.el('p', { 'aria-live': 'polite' }), started = await calls.agent.move_data(target);

		const close = D.dialogue(_('Moving the data'), [ place, D.el('p', {}, _('This continues if you leave the page; see Activity.')) ], [
			D.el('button', { 'type': 'button', 'class': 'btn', 'click': () => close() }, _('Close')), D.always('negative', _('Cancel the move'), () => calls.agent.job_cancel(started.job.id))
		]);
		const job = await jobs.finished(started, step => D.fill(place, jobs.words(step)));

		close();

		if (job.state !== 'succeeded')
			return D.notify('error', _('%s; the old data is in use as before.').format(job.error ? sentences.say(job.error.message) : job.state));

		return D.ask(_('The data is moved'), [ _('Docker runs with the data in %s. The old data is still there; this command removes it:').format(target), D.el('code', {}, job.result.remove) ], _('OK'), () => location.reload());
	}
});
