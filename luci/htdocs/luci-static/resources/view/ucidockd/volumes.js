// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Volumes: those of the engine with who uses them and how large they are, their data down and up, and those of the
// router's configuration. Data come and go as archives, whether a container has the volume or not.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.files as files';
'require ucidockd.format as format';
'require ucidockd.inspect as inspect';
'require ucidockd.live as live';
'require ucidockd.prune as prune';
'require ucidockd.containerlist as rows';
'require ucidockd.schemas as schemas';
'require ucidockd.sections as sections';
'require ucidockd.status as status';
'require ucidockd.watch as watch';

const CONFIG = 'containers';
const ANONYMOUS = (/^[0-9a-f]{64}$/);

// short enough for a title
function nameOf({ Name: name }) {
	return ANONYMOUS.test(name) ? name.slice(0, 12) : name;
}

function fileInput() {
	return D.el('input', { 'type': 'file', 'accept': '.tar', 'aria-label': _('Tar archive') });
}

// before Docker 23.0 (API 1.42) a prune would take volumes with a name too, and the agent refuses it
function prunes(snapshot) {
	const [ major, minor ] = (snapshot.agent?.engine?.api ?? '').split('.').map(Number);

	return major > 1 || minor >= 42;
}

return view.extend({
	async load() {
		const [ found, readable, schema ] = await Promise.all([ this.look(), editor.load(CONFIG), schemas.load('volume') ]);

		return { found, readable, schema };
	},

	async look() {
		const ask = calls.together();
		const [ volumes, containers, snapshot ] = await Promise.all([
			watch.list(ask.volume.list()), L.resolveDefault(ask.container.list({ all: true }), []), L.resolveDefault(ask.agent.status(), {})
		]);
		const all = snapshot.resources ?? [];
		const sorted = volumes?.Volumes?.sort((one, other) => ANONYMOUS.test(one.Name) - ANONYMOUS.test(other.Name) || one.Name.localeCompare(other.Name));

		return { volumes: volumes && (sorted ?? []), made: rows.make(containers, all, 0), mistakes: snapshot.agent?.config_issues, prunes: prunes(snapshot), owners: new Map(all.filter(one => one.kind === 'volume').map(one => [ one.object_id, one ])) };
	},

	// [{row, path}, ...] of the containers that have it
	usersOf(volume, made) {
		return made.flatMap(row => (row.container?.Mounts ?? []).filter(mount => mount.Name === volume.Name).map(mount => ({ row, path: mount.Destination, volume: volume.Name })));
	},

	draw(found) {
		this.found = found;

		const { volumes, made, owners } = found;

		D.fill(this.list, D.table([ _('Name'), _('Used by'), _('Size'), _('Path on the router'), '' ],
			(volumes ?? []).map(one => this.row(one, owners.get(one.Name), this.usersOf(one, made))), volumes ? _('There is no volume. Add one below, or in the settings of a container.') : watch.silence()));
	},

	// the engine reads every file for that: only on request
	async measure() {
		const { VolumeUsage: usage, Volumes: volumes } = await calls.docker.df();

		this.sizes = new Map((usage?.Items ?? volumes ?? []).map(one => [ one.Name, one.UsageData?.Size ]));
		this.draw(this.found);
	},

	remove(volume) {
		const force = D.el('input', { 'type': 'checkbox' });

		D.ask(_('Remove volume %s').format(nameOf(volume)), [ _('All data in it is lost. This cannot be undone.'), D.labelled(_('Remove it even if its driver does not answer'), force) ], _('Remove'), async () => {
			await calls.volume.remove(volume.Name, force.checked ? { force: true } : undefined);
			await this.refresh();
		}, 'negative');
	},

	// which containers stop for it, in words
	whoStops(users, stop, none) {
		const names = [ ...new Set(rows.mounting(users.map(({ row }) => row), [ users[0]?.volume ]).filter(row => row.owner).map(row => row.name)) ];

		return names.length ? stop.format(names.join(', ')) : none;
	},

	download(volume, stop) {
		return files.download({ target: 'volume', volume: volume.Name, stop }, this.progress);
	},

	askDownload(volume, users) {
		D.ask(_('Download %s').format(nameOf(volume)), [
			_('The copy is consistent: nothing writes to the volume meanwhile.'), this.whoStops(users, _('These containers stop until the download ends, and start again: %s.'), _('No container has to stop.'))
		], _('Download'), () => {
			D.attempt(() => this.download(volume, true));
		});
	},

	// starts an upload and leaves the dialogue: how far it is, the page shows
	send(spec, chosen) {
		const [ file ] = chosen.files;

		if (!file)
			throw new Error(_('Choose a file first.'));

		D.attempt(async () => {
			await files.upload(spec, file, this.progress);
			D.notify('info', _('%s: all files of the archive are in the volume.').format(spec.volume));
			await this.refresh();
		});
	},

	restore(volume, users) {
		const chosen = fileInput(), over = D.select(_('How'), [ [ 'replace', _('replace all files of the volume') ], [ 'add', _('add to them; files of the same name are replaced') ] ], () => tell());
		const words = D.spoken('div', {}), tell = () => D.fill(words, over.value === 'replace' ? [
			D.el('p', {}, this.whoStops(users, _('These containers stop for a moment and start again: %s.'), _('No container has to stop.'))),
			D.el('p', {}, _('If the archive is damaged, the disk is full, or a container does not start with the new files, everything stays as it is.'))
		] : D.el('p', {}, this.whoStops(users, _('%s keeps running and may change its files meanwhile.'), '')));

		tell();
		D.ask(_('Restore %s from a file').format(nameOf(volume)), [ D.el('p', {}, chosen), D.el('p', {}, over), words ], _('Restore'),
			() => this.send({ target: 'volume', volume: volume.Name, ...(over.value === 'replace' ? { replace: true } : {}) }, chosen), 'negative');
	},

	create() {
		const name = D.el('input', { 'type': 'text', 'autocomplete': 'off', 'spellcheck': 'false' }), chosen = fileInput();

		D.ask(_('New volume from a file'), [ D.el('p', {}, D.labelled(_('Name'), name)), D.el('p', {}, chosen) ], _('Create'), () => {
			if (!name.value.trim())
				throw new Error(_('%s is missing.').format(_('Name')));

			this.send({ target: 'volume', volume: name.value.trim(), create: true }, chosen);
		});
	},

	row(volume, owner, users) {
		const told = owner && status.verdict(owner), size = this.sizes?.get(volume.Name), isAnonymous = ANONYMOUS.test(volume.Name);
		// one that a managed container names is made again with it
		const mark = owner ? '' : isAnonymous ? _('no name') : users.some(({ row }) => row.owner) ? '' : _('not managed');

		return [
			[ D.el('strong', { 'class': 'ucidockd-any', 'title': volume.Name }, isAnonymous ? nameOf(volume) + '…' : volume.Name), mark ? [ ' ', D.el('small', { 'class': 'ucidockd-quiet' }, mark) ] : '',
				told && told.level !== 'ok' && D.verdict(told) ],
			users.length ? users.map(({ row, path }) => D.el('div', { 'class': 'ucidockd-text' }, D.page([ 'container', row.path ], row.name), ' ', D.el('small', { 'class': 'ucidockd-quiet ucidockd-any' }, path))) : '-',
			size === undefined ? '' : format.bytes(size), D.el('small', { 'class': 'ucidockd-any' }, volume.Mountpoint),
			D.el('div', { 'class': 'ucidockd-actions' },
				D.button('neutral', _('Download'), () => this.download(volume)), ' ',
				D.menu(_('More'), [
					users.length > 0 && D.button('neutral', _('Stop containers and download'), () => this.askDownload(volume, users)),
					D.button('neutral', _('Restore from a file'), () => this.restore(volume, users)),
					D.button('neutral', _('Browse'), async () => (await L.require('ucidockd.volumefiles')).open(this.files, volume.Name, _('Files of %s').format(nameOf(volume)), this.progress)),
					inspect.button(volume.Name, () => calls.volume.inspect(volume.Name)),
					!owner && !users.length && D.button('negative', _('Remove'), () => this.remove(volume))
				]))
		];
	},

	render({ found, readable, schema }) {
		const declared = readable ? sections.page({ config: CONFIG, type: 'volume', schema, mistakes: found.mistakes, title: _('Managed volumes'), words: _('If you remove a volume here, its data stays, unless "Remove volumes" is on in Settings.'), label: _('Add volume'), main: [ 'driver' ] }) : editor.refused();

		this.refresh = watch.inOrder(() => this.look(), again => this.draw(again));
		this.list = D.el('div', {});
		this.files = D.el('div', {});
		this.progress = files.progress();
		this.draw(found);
		watch.engine(() => !this.found.volumes, () => this.refresh());

		const unused = prune.button('volumes', _('Remove unused volumes without a name'), _('Removes all volumes that have no name and that no container uses, with their data. This cannot be undone.'), () => this.refresh());

		return D.el('div', {}, D.connection(live), D.el('h2', {}, _('Volumes')), D.bar(D.always('neutral', _('Show sizes'), () => this.measure()), D.button('neutral', _('New volume from a file'), () => this.create()), L.hasViewPermission() && D.page('settings', _('Backups'), 'set-backup', 'btn cbi-button'), found.prunes ? D.menu(_('Clean up'), [ unused ]) : ''), this.progress.node, this.files, this.list, declared);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
