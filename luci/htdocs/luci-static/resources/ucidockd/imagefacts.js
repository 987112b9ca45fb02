// SPDX-License-Identifier: GPL-2.0-or-later
// What an image gives a container that does not say otherwise: shown in the container's form. Values of environment
// variables stay out, `factsOf` and `placeholdersOf` are pure.
'use strict';
'require baseclass';
'require form';
'require uci';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';

function keysOf(table) {
	return Object.keys(table ?? {}).sort();
}

// as a command line would have it
function quoted(words) {
	return (words ?? []).map(word => (/^[\w@%+=:,./-]+$/).test(word) ? word : "'%s'".format(word.replaceAll("'", "'\\''"))).join(' ');
}

function healthOf({ Test: test } = {}) {
	return !test || test[0] === 'NONE' ? '' : test[0] === 'CMD-SHELL' ? test[1] ?? '' : quoted(test.slice(1));
}

return baseclass.extend({
	// what fields show while they are empty; `config` is the image's `Config`
	placeholdersOf(config) {
		return {
			entrypoint: quoted(config.Entrypoint), command: quoted(config.Cmd), user: config.User ?? '', workdir: config.WorkingDir ?? '',
			stop_signal: config.StopSignal ?? '', health_cmd: healthOf(config.Healthcheck)
		};
	},

	// [[words, text], ...] of what it has
	factsOf(config) {
		const names = (config.Env ?? []).map(entry => entry.split('=')[0]);

		return [
			[ _('Entrypoint'), quoted(config.Entrypoint) ], [ _('Command'), quoted(config.Cmd) ], [ _('User'), config.User ], [ _('Working directory'), config.WorkingDir ],
			[ _('Ports'), keysOf(config.ExposedPorts).join(', ') ], [ _('Volumes'), keysOf(config.Volumes).join(', ') ],
			[ _('Environment (names)'), names.join(', ') ], [ _('Health check'), healthOf(config.Healthcheck) ], [ _('Stop signal'), config.StopSignal ]
		].filter(([ , text ]) => text);
	},

	// to the form of one container, before it is drawn: a table on `tab`, and placeholders
	async add(section, id, tab) {
		const options = Object.fromEntries(section.children.map(option => [ option.option, option ]));
		const place = D.el('div', {});
		const shown = section.taboption(tab, form.DummyValue, '_image', _('The image gives'));

		shown.renderWidget = () => place;
		options.image.onchange = async (_event, _id, image) => {
			await this.show(image, place, options);
			Object.keys(this.placeholdersOf({})).forEach(name => this.redraw(options[name], id));
		};
		await this.show(uci.get('containers', id, 'image'), place, options);
	},

	async show(image, place, options) {
		const asked = this.asked = Symbol(image);
		const found = image ? await calls.image.inspect(image).catch(() => null) : null;

		if (asked !== this.asked) // another image was chosen meanwhile
			return;

		const facts = found ? this.factsOf(found.Config ?? {}) : [];

		D.fill(place, facts.length ? D.facts(facts) : D.el('em', {}, found ? _('nothing') : _('not known before the image is here: pull it, or save')));

		for (const [ name, text ] of Object.entries(this.placeholdersOf(found?.Config ?? {})))
			this.mark(options[name], text);
	},

	mark(option, text) {
		option.ownPlaceholder ??= option.placeholder ?? '';
		option.placeholder = text || option.ownPlaceholder;
	},

	redraw(option, id) {
		for (const input of option.getUIElement(id)?.node?.querySelectorAll('input[type=text]') ?? [])
			input.placeholder = option.placeholder;
	}
});
