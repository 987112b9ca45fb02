// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Containers > Add container: an empty form, or one that a `docker run` line, a compose file or another container fills.
'use strict';
'require view';
'require uci';
'require ucidockd.calls as calls';
'require ucidockd.clone as clone';
'require ucidockd.dom as D';
'require ucidockd.editor as editor';
'require ucidockd.form as form';
'require ucidockd.sentences as sentences';

const CONFIG = 'containers';
const RUN = /^\s*(?:\S*[#$]\s+)?(?:sudo\s+)?(?:docker|podman)\s/;

return view.extend({
	load: () => Promise.all([ form.prepare(), calls.can('import') ]),

	show(given) {
		D.fill(this.place, form.create(this.prepared, given));
		window.setTimeout(() => this.place.querySelector('input').focus()); // when it is on the page
	},

	copyOf(name) {
		this.show({ name: clone.freeName(name, uci.sections(CONFIG).map(one => one['.name'])), given: Object.fromEntries(clone.valuesOf(uci.get(CONFIG, name))) });
	},

	// from another container
	copy() {
		const names = uci.sections(CONFIG, 'container').map(section => section['.name']);
		const choice = D.el('select', { 'aria-label': _('Container') }, names.map(name => D.el('option', { 'value': name }, name)));
		const use = () => this.copyOf(choice.value);

		return names.length ? D.el('p', {}, choice, ' ', D.button('neutral', _('Copy its settings'), use)) : D.el('p', {}, _('There is no managed container to copy yet.'));
	},

	// a `docker run` line, or a compose file
	paste() {
		const area = D.el('textarea', { 'class': 'ucid-wide', 'rows': '8', 'spellcheck': 'false', 'aria-label': _('A docker run line, or a compose file'), 'placeholder': 'docker run -d --name web -p 8080:80 nginx:1.27' });
		const place = D.el('div', { 'aria-live': 'polite' }), read = async () => {
			D.fill(place);
			this.read(await calls.agent.import(RUN.test(area.value) ? { run: area.value } : { compose: area.value }), place, area.value);
		};

		return D.el('div', {}, D.el('p', {}, area), D.el('p', {}, D.button('neutral', _('Read it'), read)), place);
	},

	// one container fills the form; several, or one that needs files or volumes of its own, are shown and created together
	read({ sections, text, report, files, warnings }, place, given) {
		const told = [ ...report.filter(one => one.verdict !== 'taken').map(one => '%s: %s'.format(one.where, sentences.say(one.text))), ...warnings.map(sentences.say) ];
		const notes = told.length ? D.el('ul', {}, told.map(line => D.el('li', { 'class': 'ucidockd-any' }, D.coded(line)))) : '';
		const [ one ] = sections;

		if (sections.length === 1 && one.type === 'container' && !files.length) {
			D.fill(place, D.el('p', {}, _('The form below is filled in.')), notes);
			this.show({ name: one.options.name ?? one.name, given: one.options });

			return;
		}

		D.fill(this.place);
		D.fill(place, notes, sections.length ? [
			D.el('p', {}, _('These sections are added to /etc/config/containers:')), D.el('pre', { 'style': 'max-height:50vh;overflow:auto' }, text),
			files.map(file => D.el('p', {}, _('The file %s is created.').format(file.path))),
			D.button('apply', _('Create all'), async () => {
				await calls.agent.import({ ...RUN.test(given) ? { run: given } : { compose: given }, commit: true });
				location.assign(L.url('admin/services/ucidockd/containers'));
			})
		] : D.el('p', {}, _('No container was found in this text.')));
	},

	render([ prepared, canImport ]) {
		if (!prepared)
			return D.el('div', {}, D.el('h2', {}, _('Add container')), editor.refused());

		this.prepared = prepared;
		this.place = D.el('div', {});

		const node = D.el('div', {}, D.el('h2', {}, _('Add container')), canImport ? editor.folded(_('Paste a docker run line or a compose file'), this.paste()) : '', editor.folded(_('Copy from another container'), this.copy()), this.place);

		const [ , wanted ] = (/^copy=(.*)$/).exec(decodeURIComponent(location.hash.slice(1))) ?? [];

		if (wanted && uci.get(CONFIG, wanted))
			this.copyOf(wanted);
		else
			this.show();

		return node;
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
