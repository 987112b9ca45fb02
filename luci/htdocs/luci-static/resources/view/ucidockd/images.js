// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Images: what is there, who uses it, and the jobs that bring, send, build and clear away.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.files as files';
'require ucidockd.format as format';
'require ucidockd.inspect as inspect';
'require ucidockd.jobs as jobs';
'require ucidockd.live as live';
'require ucidockd.containerlist as rows';
'require ucidockd.sentences as sentences';
'require ucidockd.watch as watch';

const { image } = calls;

function namesOf(one) {
	return (one.RepoTags ?? []).filter(name => name !== '<none>:<none>');
}

return view.extend({
	load() {
		const ask = calls.together();

		return Promise.all([ watch.list(ask.image.list()), L.resolveDefault(ask.container.list({ all: true }), []), L.resolveDefault(ask.agent.status(), {}) ]);
	},

	async history(one) {
		const layers = await image.history(one.Id);

		D.show(_('History of %s').format(namesOf(one)[0] ?? format.shortId(one.Id)),
			D.el('div', { 'style': 'max-height:60vh;overflow:auto' }, D.table([ _('Age'), _('Size'), _('Made by') ], layers.map(layer => [
				format.age(layer.Created, Date.now() / 1000), format.bytes(layer.Size), layer.CreatedBy
			]))));
	},

	tag(one) {
		const field = D.el('input', { 'type': 'text', 'placeholder': 'registry.lan:5000/name:tag', 'aria-label': _('New name') });

		D.ask(_('Add a name'), [ D.el('p', {}, field) ], _('Add'), async () => {
			const [ , repo, , tag ] = /^(.*?)(:([^:/]*))?$/.exec(field.value.trim());

			if (!repo)
				throw new Error(_('%s is missing.').format(_('Name')));

			await image.tag(one.Id, { repo, tag: tag ?? 'latest' });
			await this.refresh();
		});
	},

	untag(name) {
		D.ask(_('Remove the name %s').format(name), [ _('The image stays, and keeps its other names.') ], _('Remove name'), async () => {
			await image.remove(name, { noprune: true });
			await this.refresh();
		});
	},

	// the containers that were made of it, and the names of it that sections use
	usersOf(one) {
		return this.rows.filter(row => row.container?.ImageID === one.Id || namesOf(one).includes(row.owner?.image));
	},

	saveChosen() {
		const names = this.images.filter(one => this.chosen.has(one.Id)).flatMap(one => namesOf(one).length ? namesOf(one) : [ one.Id ]);

		if (!names.length)
			throw new Error(_('Choose images first.'));

		return files.download({ target: 'save', names }, this.progress);
	},

	tick(one) {
		return D.el('input', { 'type': 'checkbox', 'aria-label': _('Select %s').format(namesOf(one)[0] ?? format.shortId(one.Id)), 'checked': this.chosen.has(one.Id) ? '' : null, 'change': event => this.chosen[event.target.checked ? 'add' : 'delete'](one.Id) });
	},

	// what goes and how much that gives back, before it goes; what other images share stays
	async removal(images, act, title) {
		const { Images: measured } = await calls.docker.df(), sizes = new Map((measured ?? []).map(one => [ one.Id, one.Size - Math.max(0, one.SharedSize ?? 0) ]));
		const freed = images.reduce((sum, one) => sum + (sizes.get(one.Id) ?? 0), 0);

		D.ask(title, [
			_('At least %s is freed. Layers that other images share stay.').format(format.bytes(freed)),
			D.el('ul', { 'style': 'max-height:40vh;overflow:auto' }, images.map(one => D.el('li', { 'class': 'ucidockd-any' }, namesOf(one).join(', ') || format.shortId(one.Id), ' ', D.el('small', {}, format.bytes(one.Size)))))
		], _('Remove'), act, 'negative');
	},

	async remove(one) {
		const names = namesOf(one);

		await this.removal([ one ], async () => {
			// one name after the other: the engine would take all but the last
			for (const name of names.length ? names : [ one.Id ])
				await image.remove(name);

			await this.refresh();
		}, _('Remove image'));
	},

	row(one) {
		const names = namesOf(one), users = this.usersOf(one);

		return [
			L.hasViewPermission() ? this.tick(one) : '',
			[ names.length ? names.map(name => D.el('div', { 'class': 'ucidockd-any' }, name)) : D.el('div', {}, D.el('em', {}, _('no name'))), D.el('small', { 'class': 'ucidockd-quiet' }, format.shortId(one.Id)) ],
			D.listed(users.map(row => D.page([ 'container', row.path ], row.name))), format.bytes(one.Size), format.age(one.Created, Date.now() / 1000),
			D.el('div', { 'class': 'ucidockd-actions' },
				names[0] && [ D.button('neutral', _('Pull again'), () => this.jobs.begin({ kind: 'pull', image: names[0] })), ' ' ],
				D.menu(_('More'), [
					D.always('neutral', _('History'), () => this.history(one)), inspect.button(names[0] ?? format.shortId(one.Id), () => image.inspect(one.Id)),
					D.button('neutral', _('Add a name'), () => this.tag(one)), names.length > 1 && names.map(name => D.button('neutral', _('Remove name %s').format(name), () => this.untag(name))),
					names[0] && D.button('neutral', _('Push to registry'), () => this.jobs.begin({ kind: 'push', image: names[0] })),
					D.button('neutral', _('Download (tar)'), () => files.download({ target: 'save', names: names.length ? names : [ one.Id ] }, this.progress)),
					!users.length && D.button('negative', _('Remove'), () => this.remove(one))
				]))
		];
	},

	draw() {
		this.table.draw(this.images.map(one => ({ key: one.Id, sign: JSON.stringify([ one.RepoTags, this.usersOf(one).map(row => row.key) ]), cells: () => this.row(one) })), this.silent);
	},

	take([ images, containers, snapshot ]) {
		this.silent = images ? '' : watch.silence();
		this.images = images ?? [];
		this.rows = rows.make(containers, snapshot.resources ?? [], 0);
	},

	// an archive of `docker save` goes up in parts
	upload() {
		const chosen = D.el('input', { 'type': 'file', 'accept': '.tar,.gz,.tgz', 'style': 'display:none' });

		chosen.addEventListener('change', () => D.attempt(async () => {
			await files.upload({ target: 'load' }, chosen.files[0], this.progress);
			await this.jobs.start();
		}));
		chosen.click();
	},

	// a build context that was packed as tar: it goes up in parts, and the build begins with the first of them
	build(chosen, tag, dockerfile) {
		if (!chosen)
			throw new Error(_('Choose a tar archive of the build context first.'));

		const options = { tags: tag ? [ tag ] : [], ...(dockerfile ? { dockerfile } : {}) };

		return Promise.all([ files.upload({ target: 'build', options }, chosen, this.progress), this.jobs.start() ]);
	},

	// One dialogue for all that nobody needs: what goes with its bytes, what stays and why, before it goes
	async cleanUp() {
		const unused = await calls.agent.prune('unused', '', true, true), dangling = await calls.agent.prune('dangling', '', false, true); // one at a time
		const { going, kept, bytes, build_cache: cache } = unused, images = bytes - cache.bytes;
		const titleOf = one => one.names.join(', ') || format.shortId(one.id);
		const list = (all, told) => D.el('ul', { 'style': 'max-height:35vh;overflow:auto' }, all.map(one => D.el('li', { 'class': 'ucidockd-any' }, titleOf(one), ' ', D.el('small', {}, told(one)))));
		const nameless = new Set(dangling.going.map(one => one.id)), shown = D.el('div', {}), box = D.el('input', { 'type': 'checkbox' });
		const draw = () => D.fill(shown, list(going.filter(one => choice.value === 'unused' || (choice.value === 'dangling' && nameless.has(one.id))), one => format.bytes(one.bytes)));
		const choice = D.select(_('Images'), [
			[ 'unused', _('all that nothing uses: %d, at least %s').format(going.length, format.bytes(images)) ],
			[ 'dangling', _('only those without a name: %d, at least %s').format(dangling.going.length, format.bytes(dangling.bytes)) ], [ 'off', _('none', 'images') ]
		], draw);

		const stays = D.el('details', {}, D.el('summary', {}, _('What stays')), list(kept, one => D.said(one.why)));

		if (!going.length && !cache.bytes)
			return D.show(_('Clean up'), D.el('p', {}, _('There is nothing to remove.')), stays);

		draw();

		return D.ask(_('Clean up'), [
			D.el('p', {}, D.labelled(_('Images'), choice)), shown, _('Layers that other images share stay. Containers and volumes are not touched.'),
			stays, D.el('p', {}, D.labelled(_('Build cache too: %s. The next builds take longer.').format(format.bytes(cache.bytes)), box))
		], _('Remove'), async () => {
			if (choice.value === 'off')
				return box.checked ? this.jobs.begin({ kind: 'prune', what: 'build' }) : undefined;

			const done = await calls.agent.prune(choice.value, '', box.checked, false);

			D.notify('info', done.under_way ? _('This takes longer and continues in the background.') : _('%s freed.').format(format.bytes(done.bytes)));
			(done.failed ?? []).forEach(one => D.notify('error', '%s: %s'.format(one.name, sentences.say(one.error))));

			return this.refresh();
		}, 'negative');
	},

	tools() {
		if (!L.hasViewPermission())
			return null;

		const name = D.el('input', { 'type': 'text', 'size': 28, 'placeholder': _('image to pull, such as nginx:1.27'), 'aria-label': _('Image to pull') });
		const [ remote, tag, dockerfile, source, imported ] = [ 'https://git.example.org/app.git#main', 'app:1', 'Dockerfile', 'https://example.org/rootfs.tar.gz', 'rootfs:1' ]
			.map(placeholder => D.el('input', { 'type': 'text', placeholder }));
		const context = D.el('input', { 'type': 'file', 'accept': '.tar,.gz,.tgz,.xz,.bz2' });
		const given = field => field.value.trim();
		const build = () => ({ kind: 'build', remote: given(remote), tags: [ given(tag) ].filter(Boolean), ...(given(dockerfile) ? { dockerfile: given(dockerfile) } : {}) });

		return [
			D.bar(name, D.button('apply', _('Pull'), () => this.jobs.begin({ kind: 'pull', image: given(name) })), D.button('neutral', _('Load from file'), () => this.upload()),
				D.button('neutral', _('Clean up'), () => this.cleanUp()),
				D.menu(_('More'), [ D.button('neutral', _('Download selected (tar)'), () => this.saveChosen()) ])),
			D.el('details', {}, D.el('summary', {}, _('Build or import')),
				D.bar(D.labelled(_('Name'), tag), D.labelled('Dockerfile', dockerfile)),
				D.bar(D.labelled(_('Git or archive URL'), remote), D.button('neutral', _('Build from URL'), () => this.jobs.begin(build()))),
				D.bar(D.labelled(_('Archive of the build context'), context), D.button('neutral', _('Build from archive'), () => this.build(context.files[0], given(tag), given(dockerfile)))),
				D.bar(D.labelled(_('URL of a root file system'), source), D.labelled(_('Name'), imported), D.button('neutral', _('Import'), () => this.jobs.begin({ kind: 'import', source: given(source), image: given(imported) }))))
		];
	},

	render(found) {
		this.take(found);
		this.refresh = watch.inOrder(() => this.load(), again => {
			this.take(again);
			this.draw();
		});
		this.chosen = new Set();
		this.table = D.keyed([ '', _('Name'), _('Used by'), _('Size'), _('Age'), '' ], _('No image yet. Pull one by its name above.'));
		this.progress = files.progress();
		this.jobs = jobs.make(() => this.refresh());
		this.jobs.start();
		this.draw();
		watch.engine(() => this.silent !== '', () => this.refresh());

		return D.el('div', {}, D.connection(live), D.el('h2', {}, _('Images')), this.tools(), this.progress.node, this.jobs.node, this.table.node);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
