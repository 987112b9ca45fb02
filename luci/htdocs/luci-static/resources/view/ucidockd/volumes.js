// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Volumes: those of the engine with who uses them and how large they are, their data down and up, and those of the
// router's configuration. Data come and go by a container that has the volume, running or not.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.files as files';
'require ucidockd.format as format';
'require ucidockd.inspect as inspect';
'require ucidockd.prune as prune';
'require ucidockd.containerlist as rows';
'require ucidockd.schemas as schemas';
'require ucidockd.sections as sections';
'require ucidockd.status as status';

const CONFIG = 'containers';
const ANONYMOUS = (/^[0-9a-f]{64}$/);

return view.extend({
	async load() {
		const [ found, readable, schema ] = await Promise.all([ this.look(), editor.load(CONFIG), schemas.load('volume') ]);

		return { found, readable, schema };
	},

	async look() {
		const ask = calls.together();
		const [ volumes, containers, snapshot ] = await Promise.all([
			L.resolveDefault(ask.volume.list(), null), L.resolveDefault(ask.container.list({ all: true }), []), L.resolveDefault(ask.agent.status(), {})
		]);
		const all = snapshot.resources ?? [];
		const sorted = volumes?.Volumes?.sort((one, other) => ANONYMOUS.test(one.Name) - ANONYMOUS.test(other.Name) || one.Name.localeCompare(other.Name));

		return { volumes: volumes && (sorted ?? []), made: rows.make(containers, all, 0), owners: new Map(all.filter(one => one.kind === 'volume').map(one => [ one.object_id, one ])) };
	},

	// [{row, path}, ...] of the containers that have it
	usersOf(volume, made) {
		return made.flatMap(row => (row.container?.Mounts ?? []).filter(mount => mount.Name === volume.Name).map(mount => ({ row, path: mount.Destination })));
	},

	draw(found) {
		this.found = found;

		const { volumes, made, owners } = found;

		D.fill(this.list, D.table([ _('Name'), _('Used by'), _('Size'), _('Path on the router'), '' ],
			(volumes ?? []).map(one => this.row(one, owners.get(one.Name), this.usersOf(one, made))), volumes ? _('There is no volume. Add one below, or in the settings of a container.') : _('Docker does not answer.')));
	},

	async refresh() {
		this.draw(await this.look());
	},

	// the engine reads every file for that: only on request
	async measure() {
		const { VolumeUsage: usage, Volumes: volumes } = await calls.docker.df();

		this.sizes = new Map((usage?.Items ?? volumes ?? []).map(one => [ one.Name, one.UsageData?.Size ]));
		this.draw(this.found);
	},

	remove(volume) {
		const force = D.el('input', { 'type': 'checkbox' });

		D.ask(_('Remove volume %s').format(volume.Name.slice(0, 24)), [ _('All data in it is lost. This cannot be undone.'), D.labelled(_('Remove it even if its driver does not answer'), force) ], _('Remove'), async () => {
			await calls.volume.remove(volume.Name, force.checked ? { force: true } : undefined);
			await this.refresh();
		});
	},

	restore({ row, path }, volume) {
		const chosen = D.el('input', { 'type': 'file', 'accept': '.tar', 'aria-label': _('Backup file') });

		D.ask(_('Restore %s').format(volume.Name.slice(0, 24)), [
			_('The files of the backup are written into the volume. Files of the same name are replaced, others stay.'),
			row.container.State === 'running' && _('%s is running and uses the volume: stop it first if it must not change its files meanwhile.').format(row.name), chosen
		].filter(Boolean), _('Restore'), () => files.upload({ target: 'archive', container: row.container.Id, path: path.replace(/\/[^/]*\/?$/, '') || '/' }, chosen.files[0], this.progress));
	},

	row(volume, owner, users) {
		const told = owner && status.verdict(owner), [ user ] = users, size = this.sizes?.get(volume.Name), isAnonymous = ANONYMOUS.test(volume.Name);

		return [
			[ D.el('strong', { 'class': 'ucidockd-any', 'title': volume.Name }, isAnonymous ? volume.Name.slice(0, 12) + '…' : volume.Name), owner ? '' : [ ' ', D.el('small', { 'class': 'ucidockd-quiet' }, isAnonymous ? _('no name') : _('not managed')) ],
				told && told.level !== 'ok' && D.el('div', {}, D.badge(told.level, told.label), ' ', D.el('small', {}, told.message)) ],
			users.length ? users.map(({ row, path }) => D.el('div', {}, D.page([ 'container', row.path ], row.name), ' ', D.el('small', { 'class': 'ucidockd-quiet ucidockd-any' }, path))) : '-',
			size === undefined ? '' : format.bytes(size), D.el('small', { 'class': 'ucidockd-any' }, volume.Mountpoint),
			D.el('div', { 'class': 'ucidockd-actions' },
				user && [ D.button('neutral', _('Back up'), () => files.download({ target: 'archive', container: user.row.container.Id, name: volume.Name, path: user.path }, this.progress)), ' ' ],
				D.menu(_('More'), [
					user && D.button('neutral', _('Restore'), () => this.restore(user, volume)),
					user && D.page([ 'container', user.row.path ], _('Browse'), 'files=' + user.path, 'btn cbi-button'),
					inspect.button(volume.Name, () => calls.volume.inspect(volume.Name)),
					!owner && !users.length && D.button('negative', _('Remove'), () => this.remove(volume))
				]))
		];
	},

	render({ found, readable, schema }) {
		const declared = readable ? sections.page({ config: CONFIG, type: 'volume', schema, title: _('Declared volumes'), words: _('A volume whose section is removed keeps its data, unless the agent is told otherwise in Settings.'), label: _('Add volume'), main: [ 'driver' ] }) : editor.refused();

		this.list = D.el('div', {});
		this.progress = files.progress();
		this.draw(found);

		const unused = prune.button('volumes', _('Remove unused volumes without a name'), _('Removes all volumes that have no name and that no container uses, with their data. This cannot be undone.'), () => this.refresh());

		return D.el('div', {}, D.el('h2', {}, _('Volumes')), D.bar(D.always('neutral', _('Show sizes'), () => this.measure()), D.menu(_('Clean up'), [ unused ])), this.progress.node, this.list, declared);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
