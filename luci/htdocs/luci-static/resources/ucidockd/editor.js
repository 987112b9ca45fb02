// SPDX-License-Identifier: GPL-2.0-or-later
// Sections of UCI that are edited in the page: what the agent would do for exactly this change (`preview`), and Save & Apply.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.actions as actions';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.effects as effects';
'require ucidockd.fields as fields';
'require ucidockd.sentences as sentences';

const QUIET_MS = 600;
const NO = [ '0', 'no', 'off', 'false', 'disabled' ];

function issueText({ section, option, message, expected }) {
	return [ [ section, option ].filter(Boolean).join('.'), [ sentences.say(message), expected && _('expected: %s').format(sentences.say(expected)) ].filter(Boolean).join('; ') ].filter(Boolean).join(': ');
}

// makes a field seen: opens what it is folded into, scrolls there, gives it the focus
function goTo(field) {
	for (let node = field.node.parentElement; node; node = node.parentElement)
		if (node.tagName === 'DETAILS')
			node.open = true;

	field.node.scrollIntoView({ block: 'center' });
	field.control.focus();
}

class Editor {
	// `confirm(plan, given)`: lines of what else has to be agreed to; `before()`: what is to be done before the change is saved;
	// `first()`: a field that is wrong and not of a section
	constructor({ confirm, before, first } = {}) {
		Object.assign(this, { confirm, before, first, sections: [], plans: new Map() });
		this.said = D.el('div', { 'aria-live': 'polite' });
	}

	section(spec) {
		const made = fields.make(this, spec);

		this.sections.push(made);

		return made;
	}

	changed() {
		this.sections.forEach(section => section.update());
		window.clearTimeout(this.timer);
		this.timer = window.setTimeout(() => this.look(), QUIET_MS);
	}

	// {package: {section: what it says}} of all that is not as it was
	given() {
		const found = {};

		for (const section of this.sections.filter(one => one.isChanged() && one.id))
			(found[section.config] ??= {})[section.id] = section.whole();

		return found;
	}

	wrongFields() {
		return this.sections.flatMap(section => section.wrongFields());
	}

	// the agent's plan for exactly this; asked for once
	plan(given) {
		const key = JSON.stringify(given);

		if (!this.plans.has(key)) {
			this.plans = new Map([ [ key, calls.agent.preview(given, true) ] ]);
			this.plans.get(key).catch(() => this.plans.delete(key));
		}

		return this.plans.get(key);
	}

	// says what the change would do, as soon as it is a whole one
	async look() {
		const given = this.given();

		if (!Object.keys(given).length || this.sections.some(one => one.isNew && one.isWanted && !one.whole()?.image && one.type === 'container')) {
			this.say();

			return;
		}

		const plan = await this.plan(given).catch(() => null);

		const isWrong = plan?.issues?.some(issue => issue.severity === 'error' && this.sections.some(one => one.id === issue.section));

		if (JSON.stringify(given) !== JSON.stringify(this.given()))
			return;

		for (const section of this.sections)
			section.warn((plan?.issues ?? []).filter(issue => issue.severity === 'warning' && issue.section === section.id));

		isWrong ? this.say() : this.tell(plan, given);
	}

	// what the plan says; of dockerd what its options say, since that names what becomes of containers
	linesOf(plan) {
		const touched = this.sections.filter(one => one.config === 'dockerd' && one.isChanged()).flatMap(one => Object.keys(one.changes()).map(name => one.schema.properties[name]?.['x-effect']));
		const daemon = effects.ofDaemon(touched, NO.includes(uci.get('dockerd', 'globals', 'live_restore')));
		const operations = (plan?.operations ?? []).filter(({ key }) => key !== effects.DAEMON || !daemon.length);

		return [ ...daemon, ...plan ? effects.ofPlan({ ...plan, operations }) : [] ];
	}

	tell(plan, given) {
		const lines = this.linesOf(plan);

		this.seen = plan && JSON.stringify(given);
		this.say(lines.length ? D.el('ul', {}, lines.map(({ text, heavy }) => D.el('li', {}, heavy ? D.el('strong', {}, D.coded(text)) : D.coded(text)))) : plan ? _('Running containers are not affected.') : '');
	}

	say(...content) {
		D.fill(this.said, content.length && content[0] !== '' ? D.el('div', {}, content) : '');
	}

	fail(words, field, ...more) {
		this.say(D.el('p', { 'class': 'ucid-error', 'role': 'alert' }, D.coded(words)), more);

		if (field)
			goTo(field);
	}

	// shows mistakes that the agent found, each at its field; an option that has none can be removed
	blame(issues) {
		const placed = issues.map(issue => ({ ...issue, of: this.sections.find(one => one.id === issue.section && one.config === issue.package) }));
		const fields = placed.map(issue => issue.of?.refuse(issue)), lost = placed.filter((issue, at) => !fields[at] && issue.of?.raw[issue.option] !== undefined);
		const buttons = [ ...new Map(lost.map(issue => [ issue.option, issue ])).values() ].map(({ of, option }) => D.button('negative', _('Remove the option %s').format(option), () => {
			of.drop(option);
			this.changed();
		}));

		this.fail(issues.map(issueText).join('\n'), fields.find(Boolean), ...buttons);
	}

	// Shows the mistakes that the files have already, to people who come to correct them. `texts`: all of them, from the status.
	async showMistakes(texts = []) {
		const isMine = text => this.sections.some(({ config, id }) => id && [ '.', ':' ].some(end => text.startsWith('%s.%s%s'.format(config, id, end))));

		if (!texts.some(isMine))
			return;

		const { issues = [] } = await L.resolveDefault(calls.agent.preview({}, true), {});
		const mine = issues.filter(({ severity, code, text }) => (severity === 'error' || code === 'unknown-option') && isMine(text));

		if (mine.length && !Object.keys(this.given()).length)
			this.blame(mine);
	}

	async save(isApplied) {
		window.clearTimeout(this.timer);

		const [ wrong ] = [ this.first?.(), ...this.wrongFields() ].filter(Boolean);

		if (wrong)
			return this.fail(_('%s: correct this first.').format(wrong.title), wrong);

		const given = this.given();

		if (!Object.keys(given).length)
			return isApplied && uci.changes && Object.keys(await uci.changes()).length ? actions.apply() : this.fail(_('Nothing was changed.'));

		let plan = null;
		const unseen = [];

		try {
			plan = await this.plan(given);
		} catch (error) {
			unseen.push(_('The agent could not check this: %s').format(D.wordsOf(error)));
		}

		if (plan && await this.refused(plan))
			return undefined;

		if (plan && this.seen !== JSON.stringify(given)) {
			this.tell(plan, given);
			unseen.push(...this.linesOf(plan).filter(({ heavy }) => heavy).map(({ text }) => text));
		}

		return this.agree([ ...unseen, ...await this.confirm?.(plan, given) ?? [] ], () => this.commit(isApplied));
	}

	agree(lines, action) {
		if (!lines.length)
			return action();

		D.ask(_('Save this change?'), lines, _('Save & Apply'), action);

		return undefined;
	}

	// whether the agent finds mistakes that this change makes; they are shown at their fields
	async refused(plan) {
		const errors = (plan.issues ?? []).filter(issue => issue.severity === 'error');

		if (!errors.length)
			return false;

		const before = new Set(((await calls.agent.preview({}, true).catch(() => ({}))).issues ?? []).map(issueText));
		const mine = errors.filter(issue => !before.has(issueText(issue)) || this.sections.some(one => one.isChanged() && one.id === issue.section && issue.option in one.changes()));

		if (!mine.length)
			return false;

		this.blame(mine);

		return true;
	}

	async commit(isApplied) {
		await this.before?.();
		this.sections.filter(one => one.isChanged()).forEach(one => one.commit());
		await uci.save();

		if (isApplied)
			await actions.apply();
		else
			location.reload();
	}

	// `label`: of the button that applies
	bar(label) {
		return D.el('div', { 'class': 'ucid-bar' }, this.said,
			D.button('apply', label ?? _('Save & Apply'), () => this.save(true)), ' ',
			D.button('save', _('Save'), () => this.save(false)), ' ',
			D.button('reset', _('Reset'), () => location.reload()));
	}
}

return baseclass.extend({
	make: hooks => new Editor(hooks),

	// a login that may not read the configuration (it holds passwords) is told so
	refused: () => D.el('p', { 'class': 'alert-message notice' }, _('This login cannot see the configuration, because it holds passwords.')),

	// whether these files of /etc/config may be read
	async load(...configs) {
		try {
			await uci.load(configs);

			return true;
		} catch (error) {
			if (L.hasViewPermission())
				throw error;

			return false;
		}
	},

	// folded away; `set`: how many of its options say something
	folded(title, nodes, set, isOpen) {
		return D.el('details', { 'open': isOpen ? '' : null }, D.el('summary', {}, title, set ? ' (%s)'.format(N_(set, '%d set', '%d set').format(set)) : ''), nodes);
	}
});
