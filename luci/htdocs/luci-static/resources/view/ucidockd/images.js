// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Images: what is there, and the jobs that bring, send, build and clear away.
'use strict';
'require view';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.files as files';
'require ucidockd.format as format';
'require ucidockd.inspect as inspect';
'require ucidockd.jobs as jobs';

const { image } = calls;

function namesOf(one) {
	return (one.RepoTags ?? []).filter(name => name !== '<none>:<none>');
}

return view.extend({
	load() {
		return Promise.all([ L.resolveDefault(image.list(), null), L.resolveDefault(calls.container.list({ all: true }), []) ]);
	},

	async history(one) {
		const layers = await image.history(one.Id);

		D.show(_('History of %s').format(namesOf(one)[0] ?? format.shortId(one.Id)),
			D.el('div', { 'style': 'max-height:60vh;overflow:auto' }, D.table([ _('Age'), _('Size'), _('Made by') ], layers.map(layer => [
				format.age(layer.Created, Date.now() / 1000), format.bytes(layer.Size), layer.CreatedBy
			]))));
	},

	tag(one) {
		const field = D.el('input', { 'type': 'text', 'placeholder': 'registry.lan:5000/name:tag' });

		const close = D.dialogue(_('Tag'),
			D.el('p', {}, field),
			D.el('div', { 'class': 'right' }, D.el('button', { 'class': 'btn', 'click': () => close() }, _('Cancel')), ' ',
				D.button('positive', _('Tag'), async () => {
					const [ , repo, , tag ] = /^(.*?)(:([^:/]*))?$/.exec(field.value);

					await image.tag(one.Id, { repo, tag: tag ?? 'latest' });
					close();
					await this.refresh();
				})));
	},

	untag(name) {
		D.ask(_('Take the name away'), [ _('%s is no name of this image any more. The image stays.').format(name) ], _('Take away'), async () => {
			await image.remove(name, { noprune: true });
			await this.refresh();
		});
	},

	nameOf(name, isOnly) {
		return D.el('div', {}, name, ' ', !isOnly && D.button('neutral', '×', () => this.untag(name)));
	},

	saveChosen() {
		const names = this.images.filter(one => this.chosen.has(one.Id)).flatMap(one => namesOf(one).length ? namesOf(one) : [ one.Id ]);

		if (!names.length)
			throw new Error(_('Choose images first.'));

		return files.download({ target: 'save', names }, this.progress);
	},

	tick(one) {
		return D.el('input', { 'type': 'checkbox', 'checked': this.chosen.has(one.Id) ? '' : null, 'change': event => this.chosen[event.target.checked ? 'add' : 'delete'](one.Id) });
	},

	remove(one) {
		const names = namesOf(one);
		const users = this.containers.filter(container => container.ImageID === one.Id).length;
		const texts = [ _('%s goes.').format(names.join(', ') || format.shortId(one.Id)) ];

		if (users)
			texts.push(_('Containers made of it: %d.').format(users));

		const force = D.el('input', { 'type': 'checkbox' });

		D.ask(_('Remove image'), [ ...texts, [ force, ' ', _('also when a container that is stopped was made of it (force)') ] ], _('Remove'), async () => {
			// one name after the other: the engine would take all but the last
			if (users && !force.checked)
				throw new Error(_('Remove its containers first, or choose force.'));

			for (const name of names.length ? names : [ one.Id ])
				await image.remove(name, force.checked ? { force: true } : undefined);

			await this.refresh();
		});
	},

	row(one) {
		const names = namesOf(one), users = this.containers.filter(container => container.ImageID === one.Id).length;

		return [
			L.hasViewPermission() ? this.tick(one) : '',
			names.length ? names.map(name => this.nameOf(name, names.length === 1)) : D.el('em', {}, _('no name')), format.shortId(one.Id), format.bytes(one.Size),
			format.age(one.Created, Date.now() / 1000), users || '-',
			[
				D.always('neutral', _('History'), () => this.history(one)), ' ', inspect.button(names[0] ?? format.shortId(one.Id), () => image.inspect(one.Id)), ' ',
				D.button('neutral', _('Tag'), () => this.tag(one)), ' ',
				names[0] && [ D.button('neutral', _('Push'), () => this.jobs.begin({ kind: 'push', image: names[0] })), ' ' ],
				D.button('neutral', _('Save'), () => files.download({ target: 'save', names: names.length ? names : [ one.Id ] }, this.progress)), ' ',
				D.button('negative', _('Remove'), () => this.remove(one))
			]
		];
	},

	draw() {
		D.fill(this.list, D.table([ '', _('Name'), _('ID'), _('Size'), _('Age'), _('Containers'), '' ], this.images.map(one => this.row(one)), _('no image yet: pull one by its name above')));
	},

	async refresh() {
		const [ images, containers ] = await this.load();

		this.images = images ?? this.images;
		this.containers = containers;
		this.draw();
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

	prune(what, label) {
		D.ask(label, [ _('Images that no container uses are removed: %s.').format(label), _('Images that a section names stay.') ], label, () => this.jobs.begin({ kind: 'prune', ...what }));
	},

	tools() {
		if (!L.hasViewPermission())
			return null;

		const name = D.el('input', { 'type': 'text', 'placeholder': 'nginx:1.27' });
		const [ remote, tag, dockerfile, source, imported ] = [ 'https://git.example.org/app.git#main', 'app:1', 'Dockerfile', 'https://example.org/rootfs.tar.gz', 'rootfs:1' ]
			.map(placeholder => D.el('input', { 'type': 'text', placeholder }));
		const context = D.el('input', { 'type': 'file', 'accept': '.tar,.gz,.tgz,.xz,.bz2' });
		const given = field => field.value.trim();
		const build = () => ({ kind: 'build', remote: given(remote), tags: [ given(tag) ].filter(Boolean), ...(given(dockerfile) ? { dockerfile: given(dockerfile) } : {}) });

		return [
			D.el('p', {}, name, ' ', D.button('apply', _('Pull'), () => this.jobs.begin({ kind: 'pull', image: given(name) }))),
			D.el('details', {}, D.el('summary', {}, _('Build or import')),
				D.el('p', {}, _('Name'), ' ', tag, ' ', _('Dockerfile'), ' ', dockerfile),
				D.el('p', {}, remote, ' ', D.button('neutral', _('Build from URL'), () => this.jobs.begin(build()))),
				D.el('p', {}, context, ' ', D.button('neutral', _('Build from archive'), () => this.build(context.files[0], given(tag), given(dockerfile)))),
				D.el('p', {}, source, ' ', imported, ' ', D.button('neutral', _('Import file system'), () => this.jobs.begin({ kind: 'import', source: given(source), image: given(imported) })))),
			D.el('p', {}, D.button('neutral', _('Load archive'), () => this.upload()), ' ', D.button('neutral', _('Save chosen'), () => this.saveChosen()), ' ',
				D.button('negative', _('Prune images'), () => this.prune({ what: 'images' }, _('Images without a name'))), ' ',
				D.button('negative', _('Prune all unused'), () => this.prune({ what: 'images', all: true }, _('All images that no container was made of'))), ' ',
				D.button('negative', _('Prune build cache'), () => this.prune({ what: 'build' }, _('Build cache'))))
		];
	},

	render([ images, containers ]) {
		this.images = images ?? [];
		this.containers = containers;
		this.chosen = new Set();
		this.list = D.el('div', {});
		this.progress = files.progress();
		this.jobs = jobs.make(() => this.refresh());
		this.jobs.start();
		this.draw();

		return D.el('div', {}, D.el('h2', {}, _('Images')), this.tools(), this.progress.node, this.jobs.node, this.list);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
