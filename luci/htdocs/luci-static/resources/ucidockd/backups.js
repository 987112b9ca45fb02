// SPDX-License-Identifier: GPL-2.0-or-later
// Settings > Backup: how the backups of the sections ended, one made now, the copies that there are, and a volume back from one.
// Backups run in the agent: whoever leaves the page and comes back sees them again.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.containerlist as rows';
'require ucidockd.dom as D';
'require ucidockd.format as format';

const { agent } = calls;
const LOOK_MS = 1000;

function now() {
	return Date.now() / 1000;
}

// [names that the agent stops, names of others] of the containers that have one of these volumes mounted now
async function usersOf(volumes) {
	const [ containers, status ] = await Promise.all([ calls.container.list({ all: true }), agent.status() ]);
	const found = rows.mounting(rows.make(containers, status.resources, 0), volumes);

	return [ found.filter(row => row.owner).map(row => row.name), found.filter(row => !row.owner).map(row => row.name) ];
}

// bytes of all volumes of the last backup that succeeded
function sizeOf({ archives }) {
	return Object.values(archives ?? {}).reduce((sum, one) => sum + one.bytes, 0);
}

const Backups = baseclass.extend({
	// `answer`: what `backup_list` gave; null where it cannot be had
	__init__(answer) {
		this.table = D.keyed([ _('Backup'), _('Volumes'), _('When'), _('Last result'), '' ], '');
		this.said = D.spoken('div', {});
		this.copies = D.el('div', {});
		this.node = D.el('div', {}, this.table.node, this.said, this.copies);
		this.draw(answer ?? { backups: [] });

		if (answer?.running)
			D.attempt(() => this.follow());
	},

	draw(answer) {
		const { backups, running, restored } = this.answer = answer;

		this.table.node.style.display = backups.length ? '' : 'none';
		this.table.draw(backups.map(one => ({ key: one.name, sign: JSON.stringify([ one, running !== null && running?.began, format.age(one.last?.ended, now()) ]), cells: () => this.cells(one) })));
		D.fill(this.said, running ? this.progress(running) : restored ? this.outcome(restored) : '');
	},

	cells(one) {
		return [
			D.el('strong', {}, one.name), one.volumes.map(name => D.el('div', { 'class': 'ucidockd-any' }, name)), [ this.scheduleOf(one), D.el('div', {}, D.el('small', { 'class': 'ucidockd-any ucidockd-quiet' }, one.target || _('given to a command'))) ], this.resultOf(one),
			D.el('div', { 'class': 'ucidockd-actions' },
				this.answer.running ? '' : D.button('apply', _('Back up now'), () => this.ask(one)), ' ', one.target ? D.button('neutral', _('Copies'), () => this.list(one)) : '')
		];
	},

	scheduleOf: ({ schedule, window: times }) => [ { off: _('only when asked'), daily: _('daily'), weekly: _('weekly') }[schedule] ?? schedule, times ].filter(Boolean).join(', '),

	resultOf({ last }) {
		if (!last)
			return _('not made yet');

		const ago = at => _('%s ago').format(format.age(at, now()));

		return last.message ? [ D.badge('error', _('Failed')), ' ', ago(last.ended), D.el('div', { 'class': 'ucidockd-any' }, D.said(last.message)), last.succeeded ? D.el('small', {}, _('The last one that succeeded: %s').format(format.time(last.succeeded))) : '' ]
			: [ D.badge('ok', _('Succeeded')), ' ', ago(last.ended), D.el('div', {}, D.el('small', { 'class': 'ucidockd-quiet' }, format.bytes(sizeOf(last)))) ];
	},

	progress({ what, names, volume, bytes }) {
		if (what !== 'backup')
			return D.el('p', {}, D.badge('waiting', _('Restoring volume %s').format(volume)), ' ', _('The copy is checked and unpacked first. Only then do its files replace those of the volume.'));

		const size = this.answer.backups.filter(({ name }) => names.includes(name)).reduce((sum, { last }) => sum + sizeOf(last ?? {}), 0);
		const title = _('Backing up %s').format(volume ? '%s: %s'.format(names.join(', '), volume) : names.join(', '));

		return size ? D.meter(title, bytes, size, _('%s of about %s').format(format.bytes(bytes), format.bytes(size))) : D.el('p', {}, D.badge('waiting', title), ' ', _('%s so far').format(format.bytes(bytes)));
	},

	outcome: ({ volume, file, error, ended }) => D.el('p', {}, error ? [ D.badge('error', _('Volume %s was not restored').format(volume)), ' ', D.el('span', { 'class': 'ucidockd-any' }, D.said(error)) ]
		: [ D.badge('ok', _('Volume %s is restored').format(volume)), ' ', D.el('span', { 'class': 'ucidockd-any' }, file) ], ' ', D.el('small', { 'class': 'ucidockd-quiet' }, format.time(ended))),

	// until nothing is being done any more
	async follow() {
		for (;;) {
			this.draw(await agent.backup_list());

			if (!this.answer.running)
				return this.open && this.list(this.open);

			await new Promise(done => window.setTimeout(done, LOOK_MS));
		}
	},

	// of one that stops containers, these are named first
	async ask(one) {
		const names = one.stop ? (await usersOf(one.volumes))[0] : [];
		const run = async () => {
			this.draw(await agent.backup_run([ one.name ]));
			D.attempt(() => this.follow());
		};

		return names.length ? D.ask(_('Back up %s').format(one.name), [ _('These containers stop while their volumes are copied, and start again: %s.').format(names.join(', ')) ], _('Back up now'), run) : run();
	},

	async list(one) {
		this.open = one;

		const { archives } = await agent.backup_list(one.name);

		D.fill(this.copies, D.el('h4', {}, _('Copies of %s').format(one.name)), D.table([ _('Made'), _('Volume'), _('Size'), _('Checked'), '' ], archives.map(copy => [
			[ format.time(copy.at), D.el('div', {}, D.el('small', { 'class': 'ucidockd-any ucidockd-quiet' }, copy.file)) ], copy.volume, format.bytes(copy.bytes),
			copy.sha256 ? D.badge('ok', _('verified')) : [ D.badge('warning', _('no checksum')), ' ', D.el('small', {}, _('It can only be checked while it is restored.')) ],
			D.el('div', { 'class': 'ucidockd-actions' }, D.button('neutral', _('Restore'), () => this.askBack(one, copy)))
		]), _('There are no copies in %s yet.').format(one.target)), D.el('p', {}, D.el('small', { 'class': 'ucidockd-quiet' }, _('Verified: it was read back from the disk and compared when it was made. A restore compares it again.'))));
	},

	// what stops, what is lost, and what happens if it does not work, before it happens
	async askBack({ name }, { volume, file, at }) {
		const [ managed, others ] = await usersOf([ volume ]), into = D.el('input', { 'type': 'text', 'placeholder': _('e.g. %s').format('%s_old'.format(volume)), 'autocomplete': 'off', 'spellcheck': 'false' });

		D.ask(_('Restore volume %s').format(volume), [
			_('All files of the volume are replaced by the copy of %s. What was written since then is lost.').format(format.time(at)),
			managed.length ? _('These containers stop for a moment and start again: %s.').format(managed.join(', ')) : _('No container has to stop.'),
			others.length ? D.el('p', { 'class': 'alert-message warning' }, _('ucidockd does not manage %s, which uses the volume: stop it first, or restore into a new volume.').format(others.join(', '))) : '',
			_('If the copy is damaged, the disk is full, or a container does not start with the old files, everything stays as it is.'),
			D.el('p', {}, D.labelled(_('Into a new volume instead:'), into)), D.el('p', {}, D.el('small', {}, _('Then nothing stops and nothing is lost. Mount the new volume in a container to use it.')))
		].filter(Boolean), _('Restore'), async () => {
			this.draw(await agent.backup_restore(name, volume, file, into.value.trim() || undefined));
			D.attempt(() => this.follow());
		}, 'negative');
	}
});

return baseclass.extend({ make: answer => new Backups(answer) });
