// SPDX-License-Identifier: GPL-2.0-or-later
// One section of UCI and the fields that show it: what it says, what was changed, what is wrong. What nobody touched is not written.
'use strict';
'require baseclass';
'require uci';
'require ucidockd.controls as controls';
'require ucidockd.dom as D';
'require ucidockd.effects as effects';
'require ucidockd.rows as rows';
'require ucidockd.schemas as schemas';
'require ucidockd.sentences as sentences';

let count = 0;

function isEmpty(value) {
	return value === '' || value == null || (Array.isArray(value) && !value.length);
}

function ownOptions(section) {
	return Object.fromEntries(Object.entries(section ?? {}).filter(([ name, value ]) => !name.startsWith('.') && value != null));
}

// one section; `given`: what it says when it is not in the file yet
function wordsOf({ message, expected }) {
	return [ sentences.say(message), expected && _('expected: %s').format(sentences.say(expected)) ].filter(Boolean).join('; ');
}

class Section {
	constructor(editor, { config, type, id, schema, given, isNew, isWanted }) {
		const there = id && uci.get(config, id);

		Object.assign(this, { editor, config, type, id, schema, isWanted, fields: new Map(), dropped: new Set(), isNew: isNew || !there, isAnonymous: there?.['.anonymous'] === true });
		this.raw = ownOptions(this.isNew ? given : there);
	}

	// a field; `more` may give kind, title, description, placeholder, suggest, helpers, hides, known, choices, extra, shown
	field(name, more = {}) {
		const property = this.schema.properties[name], title = more.title ?? _(property.title), id = 'ucid-%d'.format(++count);
		const either = Array.isArray(property.type) && (Array.isArray(this.raw[name]) ? 'list' : 'text'); // an `option` and a `list` may not mean the same
		const kind = more.kind ?? (either || schemas.kindOf(property));
		const value = either || kind === 'command' ? this.raw[name] : schemas.fromUci(this.type, name, property, this.raw[name]);
		const control = controls.make(kind, {
			value, title, standard: property.default, kind: rows.of(this.type, name), unset: (this.schema.required ?? []).includes(name) ? _('choose one') : schemas.unsetWords(name, property), choices: kind === 'choice' && property.enum ? schemas.choicesOf(name, property) : [],
			placeholder: kind === 'secret' ? '' : schemas.placeholderOf(property), ...more, onInput: () => this.typed(name)
		});
		const error = D.el('div', { 'class': 'ucid-error', 'role': 'alert' }), warning = D.spoken('div', { 'class': 'ucid-warning' }), effect = this.isNew && this.isWanted !== undefined ? '' : effects.ofOption(property);
		const words = D.el('div', { 'class': 'cbi-value-description' }, D.coded(more.description ?? _(property.description)), effect && D.el('span', { 'class': 'ucid-effect' }, ' ', _('A change %s.').format(effect)));

		control.input?.setAttribute('id', id);
		this.fields.set(name, {
			name, property, control, kind, title, error, warning, more, first: control.value(),
			node: D.el('div', { 'class': 'cbi-value', 'data-option': name }, D.el('label', { 'class': 'cbi-value-title', 'for': control.input ? id : null }, title),
				D.el('div', { 'class': 'cbi-value-field' }, control.node, more.extra, error, warning, words))
		});

		return this.fields.get(name).node;
	}

	typed(name) {
		const field = this.fields.get(name);

		field.refused = null;

		if (field.error.textContent)
			this.examine(field);

		this.editor.changed();
	}

	// writes into a field of text, as if it was typed
	put(name, text) {
		const { input } = this.fields.get(name).control;

		input.value = text;
		input.dispatchEvent(new Event('input'));
	}

	value(name) {
		return this.fields.has(name) ? this.fields.get(name).control.value() : schemas.fromUci(this.type, name, this.schema.properties[name], this.raw[name]) ?? '';
	}

	// whether a yes or no holds, said or not
	isOn(name) {
		return (this.value(name) || this.schema.properties[name].default) === '1';
	}

	// {option: value, null where it goes}
	changes() {
		const found = {};

		if (this.isGone)
			return found;

		for (const [ name, { control, property, first } ] of this.fields)
			if (!controls.same(control.value(), first))
				found[name] = isEmpty(control.value()) ? null : schemas.toUci(property, control.value(), this.raw[name]);

		for (const name of this.dropped)
			found[name] = null;

		return this.isNew && (Object.keys(found).length || this.isWanted) ? { ...this.raw, ...found } : found;
	}

	isChanged() {
		return this.isGone ? !this.isNew : Object.keys(this.changes()).length > 0;
	}

	// as rpcd gives sections
	whole() {
		const said = Object.entries({ ...this.raw, ...this.changes() }).filter(([ , value ]) => value !== null);

		return this.isGone ? null : { '.type': this.type, ...(this.isAnonymous ? { '.anonymous': true } : {}), ...Object.fromEntries(said) };
	}

	// shows what is wrong in a field; gives whether anything is
	examine(field) {
		const { name, property, control, kind, error, more } = field, value = control.value();
		const one = entry => more.check?.(entry) || (kind === 'command' ? '' : schemas.check(this.type, name, property, entry));
		let words = '';

		if (more.shown && !more.shown())
			words = '';
		else if (field.refused)
			words = field.refused;
		else if (isEmpty(value))
			words = (this.schema.required ?? []).includes(name) ? _('%s is missing.').format(field.title) : control.wrong?.(() => '') ?? '';
		else if (kind === 'command')
			words = rows.commandIsClosed(value) ? '' : _('A quote is not closed.');
		else
			words = control.wrong ? control.wrong(one) : one(value);

		D.fill(error, D.coded(words));

		if (!control.wrong || field.refused)
			control.mark(words !== '', field.refusedIndex);

		return words !== '';
	}

	// only what was changed has to be right: mistakes of before are shown, and keep nobody from changing something else
	wrongFields() {
		const changed = this.changes();

		return this.isGone ? [] : [ ...this.fields.values() ].filter(field => this.examine(field) && (this.isNew || field.name in changed));
	}

	// what the agent said of an option; gives its field where the page has one
	refuse({ option, index, message, expected }) {
		const field = this.fields.get(option);

		if (!field)
			return null;

		field.refused = wordsOf({ message, expected });
		field.refusedIndex = index;
		this.examine(field);

		return field;
	}

	// removes an option that has no field
	drop(name) {
		this.dropped.add(name);
	}

	// what the agent says of what was changed and need not be a mistake, as that something else has a port
	warn(issues) {
		const changed = this.changes();

		for (const { name, warning } of this.fields.values())
			D.fill(warning, name in changed ? D.coded(issues.filter(issue => issue.option === name).map(wordsOf).join('\n')) : '');
	}

	update() {
		for (const { node, more } of this.fields.values())
			if (more.shown)
				node.style.display = more.shown() ? '' : 'none';
	}

	commit() {
		if (this.isGone) {
			uci.remove(this.config, this.id);

			return;
		}

		const changes = this.changes();

		if (this.isNew)
			uci.add(this.config, this.type, this.id);

		for (const [ name, value ] of Object.entries(changes))
			value === null ? uci.unset(this.config, this.id, name) : uci.set(this.config, this.id, name, value);
	}
}

return baseclass.extend({
	make: (editor, spec) => new Section(editor, spec)
});
