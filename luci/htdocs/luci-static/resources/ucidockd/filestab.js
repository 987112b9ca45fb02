// SPDX-License-Identifier: GPL-2.0-or-later
// The tab with a container's files: folders are browsed with the container's own `ls`, files go up and down as they are,
// folders as tar archives. Up and down works without `ls` and in stopped containers as well, by path.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.files as files';
'require ucidockd.format as format';
'require ucidockd.listing as listing';
'require ucidockd.run as run';
'require ucidockd.tar as tar';

const NOT_THERE = [ 126, 127 ]; // exit codes of a program that cannot be run
const CHANGES = { 0: 'changed', 1: 'added', 2: 'deleted' };

const FilesTab = baseclass.extend({
	__init__(id, name) {
		this.id = id;
		this.name = name;
		this.progress = files.progress();
		this.path = D.el('input', { 'type': 'text', 'value': '/', 'aria-label': _('Path in the container'), 'change': () => this.go(this.path.value) });
		this.crumbs = D.el('div', { 'class': 'ucidockd-bar' });
		this.list = D.spoken('div', {});
		this.chosen = D.el('input', { 'type': 'file', 'multiple': '', 'style': 'display:none', 'change': () => D.attempt(() => this.upload()) });
		this.archive = D.el('input', { 'type': 'file', 'accept': '.tar', 'style': 'display:none', 'change': () => D.attempt(() => this.unpack()) });
		this.go('/');
	},

	render() {
		const changed = D.el('div', {});

		return D.el('div', {},
			D.bar(D.button('apply', _('Upload files'), () => this.chosen.click()), D.button('neutral', _('New folder'), () => this.askFolder()), this.path,
				D.always('neutral', _('Open'), () => this.go(this.path.value)),
				D.menu(_('More'), [
					D.button('neutral', _('Download this folder (tar)'), () => this.download('archive', this.here)),
					D.button('neutral', _('Upload and extract a tar archive here'), () => this.archive.click()),
					D.button('neutral', _('Download the whole file system (tar)'), () => this.download('export'))
				])),
			this.chosen, this.archive, this.progress.node, this.crumbs, this.list,
			D.el('details', { 'toggle': event => event.target.open && D.attempt(async () => D.fill(changed, await this.changes())) }, D.el('summary', {}, _('Changes since the container was created')), changed));
	},

	download(target, path) {
		return files.download({ target, container: this.id, name: this.name, ...(path === undefined ? {} : { path }) }, this.progress);
	},

	async go(path) {
		this.here = listing.join('/', path);
		this.path.value = this.here;
		D.fill(this.crumbs, listing.crumbs(this.here).map(([ name, to ]) => [ D.el('a', { 'href': '#files', 'click': event => this.open(event, to) }, name), ' ' ]));

		const found = await run.run(this.id, [ 'ls', '-lAn', '--', this.here === '/' ? '/' : this.here + '/' ]).catch(error => error);

		if (found instanceof Error || NOT_THERE.includes(found.code))
			D.fill(this.list, D.el('p', { 'class': 'alert-message notice' }, _('Its folders cannot be shown: the container is not running, or has no "ls". Enter a path above; "More" downloads it.'), ' ', D.el('small', {}, found instanceof Error ? D.wordsOf(found) : '')));
		else if (found.code)
			D.fill(this.list, D.el('p', { 'class': 'alert-message notice' }, found.err || _('ls ended with code %d').format(found.code)));
		else
			this.draw(listing.entriesOf(found.out));
	},

	open(event, path) {
		event.preventDefault();
		this.go(path);
	},

	draw(entries) {
		D.fill(this.list, D.table([ _('Name'), _('Size'), _('Changed'), '' ], [
			...(this.here === '/' ? [] : [ [ D.el('a', { 'href': '#files', 'click': event => this.open(event, listing.join(this.here, '..')) }, '..'), '', '', '' ] ]),
			...entries.map(one => this.row(one))
		], _('This folder is empty.')));
	},

	row({ kind, size, time, name, target }) {
		const path = listing.join(this.here, name), mayBeFolder = kind === 'd' || kind === 'l';

		return [
			[ mayBeFolder ? D.el('a', { 'class': 'ucidockd-any', 'href': '#files', 'click': event => this.open(event, path) }, kind === 'd' ? name + '/' : name) : D.el('span', { 'class': 'ucidockd-any' }, name), target && D.el('small', { 'class': 'ucidockd-quiet' }, ' → ', target) ],
			size === null ? '' : format.bytes(size), D.el('small', {}, time),
			D.el('div', { 'class': 'ucidockd-actions' },
				D.button('neutral', kind === '-' ? _('Download') : _('Download (tar)'), () => this.download(kind === '-' ? 'file' : 'archive', path)), ' ',
				D.menu(_('More'), [
					D.button('neutral', _('Details'), async () => D.show(path, D.el('pre', {}, format.fileStat(await calls.files.info_archive(this.id, { path }))))),
					D.button('negative', _('Delete'), () => this.askDelete(path, kind))
				]))
		];
	},

	async done(words) {
		const { code, err } = await run.run(this.id, words);

		if (code)
			throw new Error(NOT_THERE.includes(code) ? _('The container has no program "%s".').format(words[0]) : err || _('It ended with code %d.').format(code));

		await this.go(this.here);
	},

	askDelete(path, kind) {
		D.ask(_('Delete %s').format(path), [ kind === 'd' ? _('The folder is deleted with everything in it. This cannot be undone.') : _('The file is deleted. This cannot be undone.') ], _('Delete'),
			() => this.done([ 'rm', '-rf', '--', path ]), 'negative');
	},

	askFolder() {
		const field = D.el('input', { 'type': 'text', 'aria-label': _('Name of the folder') });

		D.ask(_('New folder in %s').format(this.here), [ field ], _('Create'), () => this.makeFolder(field.value.trim()));
	},

	// as an archive with nothing else in it: not every container has a mkdir
	async makeFolder(name) {
		if (!name || name.includes('/'))
			throw new Error(_('Enter a name without "/".'));

		await files.upload({ target: 'archive', container: this.id, path: this.here }, tar.ofFolder(name, Date.now() / 1000), this.progress);
		await this.go(this.here);
	},

	// as they are: each goes as an archive of one file, which the page makes
	async upload() {
		for (const file of [ ...this.chosen.files ])
			await files.upload({ target: 'archive', container: this.id, path: this.here }, Object.assign(tar.ofFile(file.name, file, file.lastModified / 1000), { name: file.name }), this.progress);

		this.chosen.value = '';
		await this.go(this.here);
	},

	async unpack() {
		await files.upload({ target: 'archive', container: this.id, path: this.here }, this.archive.files[0], this.progress);
		this.archive.value = '';
		await this.go(this.here);
	},

	async changes() {
		const found = await calls.container.changes(this.id) || [];

		return D.table([ '', _('Path') ], found.slice(0, 2000).map(change => [ this.changeWords(change.Kind), change.Path ]), _('Nothing was changed.'));
	},

	changeWords: kind => ({ changed: _('changed'), added: _('added'), deleted: _('deleted') }[CHANGES[kind]])
});

return baseclass.extend({ render: (id, name) => new FilesTab(id, name).render() });
