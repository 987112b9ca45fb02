// SPDX-License-Identifier: GPL-2.0-or-later
// Forms over sections of UCI, made from the schemas: a table of the sections, each edited in a dialogue with tabs. Before
// anything is saved the agent checks the whole (`ucidockd validate`): it sees what no single field can.
'use strict';
'require baseclass';
'require form';
'require uci';
'require ui';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.fields as fields';
'require ucidockd.provided as provided';
'require ucidockd.ucitext as ucitext';

const REQUEST_LIMIT = 48 * 1024;
const everyProvided = []; // LuCI saves the changes of all files, whatever map is saved

function issueText({ section, option, index, message, expected }) {
	const place = [ section, option ].filter(Boolean).join('.');

	return [ place && '%s%s:'.format(place, index == null ? '' : '[%d]'.format(index)), message + (expected ? ',' : ''), expected && _('expected: %s').format(expected) ].filter(Boolean).join(' ');
}

// at its field, where the page has one
function showAtField(map, issue) {
	map.children.filter(section => section.section === issue.section).forEach(section => fields.refuse(section, issue.section, issue));
}

return baseclass.extend({
	// a login that may not read the configuration (it holds passwords) is told so, and has nothing to save
	refused(view) {
		view.handleSave = view.handleSaveApply = view.handleReset = null;

		return D.el('p', { 'class': 'alert-message notice' }, _('This login may not see the configuration, since it holds passwords.'));
	},

	// whether /etc/config/<package> may be read
	async load(config) {
		try {
			await uci.load(config);

			return true;
		} catch (error) {
			if (L.hasViewPermission())
				throw error;

			return false;
		}
	},

	// `columns`: the options that the table shows; `inform(section, id)`: what else is on the form of one section
	grid(map, type, schema, { title, description, columns, inform }) {
		const section = map.section(form.GridSection, type, title, description);

		section.addremove = true;
		section.anonymous = false;
		section.cloneable = true;
		section.nodescriptions = true;
		section.sortable = false;
		section.modaltitle = name => '%s: %s'.format(title, name);

		section.addModalOptions = (one, id) => {
			this.guard(one, id, map.config);

			return inform?.(one, id);
		};

		const made = fields.add(section, type, schema);

		for (const [ name, option ] of Object.entries(made))
			option.modalonly = columns.includes(name) ? null : true;

		for (const name of columns)
			made[name].editable = false;

		return made;
	},

	// one section with a name of its own, there or not; `seed`: what it says while nobody has said anything
	named(map, name, type, schema, { title, description, seed }) {
		if (!map.provided) {
			const load = map.load.bind(map);

			everyProvided.push(map.provided = provided.make(map.config));
			map.load = () => {
				map.provided.add();

				return load();
			};
		}

		const section = map.section(form.NamedSection, map.provided.want(type, name, seed), type, title, description);

		return fields.add(section, type, schema);
	},

	// saves, unless the agent finds a mistake in the whole; without an agent the fields' own checks have to do
	save(map) {
		return this.withoutProvided(() => map.save(() => this.check(map), true)).catch(error => {
			ui.addNotification(null, D.el('p', { 'style': 'white-space:pre-wrap' }, error.message), 'error');
			throw error;
		});
	},

	// the form of one section is not closed while the agent finds a mistake in it: said at the field, and above all of them
	guard(section, id, config) {
		const map = section.map, page = map.parent, save = map.save.bind(map), place = D.el('div', {});
		const check = async () => {
			this.dropProvided();

			const mistakes = (await this.mistakes(config)).filter(issue => issue.section === id);

			map.root.prepend(D.fill(place, mistakes.map(issue => D.el('p', { 'class': 'alert-message error' }, issueText(issue)))));
			mistakes.forEach(issue => fields.refuse(section, id, issue));

			if (mistakes.length)
				throw new Error(mistakes.map(issueText).join('\n'));
		};

		map.save = async (_unused, silent) => {
			await this.withoutProvided(() => save(check, silent));
			await page.parse().catch(() => null); // the page is drawn anew: what is typed there and right is kept
		};
	},

	dropProvided() {
		everyProvided.forEach(one => one.drop());
	},

	// whatever becomes of `saving`, the page has its sections again
	withoutProvided(saving) {
		return saving().finally(() => everyProvided.forEach(one => one.add()));
	},

	async check(map) {
		this.dropProvided();

		const mistakes = await this.mistakes(map.config);

		mistakes.forEach(issue => showAtField(map, issue));

		if (mistakes.length)
			throw new Error(mistakes.map(issueText).join('\n'));
	},

	// what the agent finds in the whole file, as it would be saved
	async mistakes(config) {
		const types = [ ...new Set(uci.sections(config).map(section => section['.type'])) ];
		const text = ucitext.format(types.flatMap(type => uci.sections(config, type)));
		let found;

		if (text.length > REQUEST_LIMIT)
			return [];

		try {
			found = await calls.agent.validate({ [config]: text });
		} catch (error) {
			ui.addNotification(null, D.el('p', {}, _('The agent could not check this: '), D.wordsOf(error)), 'warning');

			return [];
		}

		return found.issues.filter(issue => issue.severity === 'error');
	}
});
