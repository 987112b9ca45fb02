// SPDX-License-Identifier: GPL-2.0-or-later
// The files of a volume, whether or not a container has it: the agent reads them itself, so that nothing has to run. Loaded when it
// is opened.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.files as files';
'require ucidockd.format as format';
'require ucidockd.listing as listing';
'require ucidockd.tar as tar';

class VolumeFiles {
	// `progress`: where the page shows how far a transfer is
	constructor(volume, title, progress, close) {
		Object.assign(this, { volume, progress });
		this.crumbs = D.el('div', { 'class': 'ucidockd-bar' });
		this.list = D.spoken('div', {});
		this.chosen = D.el('input', { 'type': 'file', 'multiple': '', 'style': 'display:none', 'change': () => D.attempt(() => this.upload()) });
		this.node = D.el('div', { 'class': 'cbi-section', 'tabindex': '-1' }, D.el('h3', { 'class': 'ucidockd-any' }, title),
			D.bar(D.button('apply', _('Upload files'), () => this.chosen.click()), D.always('neutral', _('Close'), close)), this.chosen, this.crumbs, this.list);
	}

	async go(path) {
		const here = listing.join('/', path), { entries, more } = await calls.agent.volume_list(this.volume, here.slice(1));

		this.here = here;
		D.fill(this.crumbs, listing.crumbs(here).map(([ name, to ]) => [ this.link(name, to), ' ' ]));
		D.fill(this.list, D.table([ _('Name'), _('Size'), _('Changed'), '' ], [
			...(here === '/' ? [] : [ [ this.link('..', listing.join(here, '..')), '', '', '' ] ]), ...entries.map(one => this.row(one))
		], _('This folder is empty.')), more ? D.el('p', {}, _('There are more files than are shown.')) : '');
	}

	link(text, path) {
		return D.el('a', { 'class': 'ucidockd-any', 'href': '#', 'click': event => {
			event.preventDefault();
			D.attempt(() => this.go(path));
		} }, text);
	}

	row({ name, kind, size, modified, link }) {
		const path = listing.join(this.here, name), isFile = kind === 'file';

		return [
			[ kind === 'folder' ? this.link(name + '/', path) : D.el('span', { 'class': 'ucidockd-any' }, name), link && D.el('small', { 'class': 'ucidockd-quiet ucidockd-any' }, ' → ', link) ],
			isFile ? format.bytes(size) : '', D.el('small', {}, format.time(modified)),
			D.el('div', { 'class': 'ucidockd-actions' }, [ 'file', 'folder' ].includes(kind) && D.button('neutral', isFile ? _('Download') : _('Download (tar)'),
				() => files.download({ target: isFile ? 'volume_file' : 'volume', volume: this.volume, path: path.slice(1) }, this.progress)))
		];
	}

	// each goes as an archive of one file, which the page makes
	async upload() {
		for (const file of [ ...this.chosen.files ])
			await files.upload({ target: 'volume', volume: this.volume, path: this.here.slice(1) }, Object.assign(tar.ofFile(file.name, file, file.lastModified / 1000), { name: file.name }), this.progress);

		this.chosen.value = '';
		await this.go(this.here);
	}
}

return baseclass.extend({
	// shows them in `place`
	async open(place, volume, title, progress) {
		const shown = new VolumeFiles(volume, title, progress, () => D.fill(place));

		await shown.go('/');
		D.fill(place, shown.node);
		shown.node.scrollIntoView({ block: 'nearest' });
		shown.node.focus({ preventScroll: true });
	}
});
