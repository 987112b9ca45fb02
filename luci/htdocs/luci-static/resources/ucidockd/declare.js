// SPDX-License-Identifier: GPL-2.0-or-later
// Forms over sections of UCI, made from the schemas: a table of the sections, each edited in a dialogue with tabs. Before
// anything is saved the agent checks the whole (`ucidockd validate`): it sees what no single field can.
'use strict';
'require baseclass';
'require form';
'require uci';
'require ucidockd.calls as calls';
'require ucidockd.clone as clone';
'require ucidockd.dom as D';
'require ucidockd.fields as fields';
'require ucidockd.provided as provided';
'require ucidockd.ucitext as ucitext';

const REQUEST_LIMIT = 48 * 1024;
const before = {}; // the mistakes that were there when the page was opened, by file
const told = new Set();
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

	// whether /etc/config/<package> may be read; what is wrong in it already keeps nobody from changing something else
	async load(config) {
		try {
			await uci.load(config);
			before[config] = (await this.validate(config).catch(() => [])).map(issueText);

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
		section.handleClone = id => clone.ask(section, id);
		section.nodescriptions = true;
		section.sortable = false;
		section.modaltitle = name => '%s: %s'.format(title, D.escape(name));

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
		map.children.filter(section => section.section).forEach(section => fields.forgive(section, section.section));

		return this.withoutProvided(() => map.save(() => this.check(map), true)).catch(error => {
			D.notify('error', error.message);
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
			fields.forgive(section, id);
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

		const mistakes = await this.mistakes(map.config), known = new Set(before[map.config]);
		const fresh = mistakes.filter(issue => !known.has(issueText(issue)));

		fresh.forEach(issue => showAtField(map, issue));

		if (fresh.length)
			throw new Error(fresh.map(issueText).join('\n'));

		for (const text of mistakes.map(issueText).filter(one => !told.has(one))) {
			told.add(text);
			D.notify('warning', _('Still wrong, and left alone by the agent: '), text);
		}
	},

	// what the agent finds in the whole file, as it would be saved; without an answer nothing
	mistakes(config) {
		return this.validate(config).catch(error => {
			D.notify('warning', _('The agent could not check this: '), D.wordsOf(error));

			return [];
		});
	},

	async validate(config) {
		const types = [ ...new Set(uci.sections(config).map(section => section['.type'])) ];
		const text = ucitext.format(types.flatMap(type => uci.sections(config, type)));

		if (text.length > REQUEST_LIMIT)
			return [];

		const { issues } = await calls.agent.validate({ [config]: text });

		return issues.filter(issue => issue.severity === 'error');
	}
});
