// SPDX-License-Identifier: GPL-2.0-or-later
// The controls of forms: one for each kind of option, and rows of fields for entries of lists. A control gives the value that
// UCI is to have ('' for none), and exactly the one it was given as long as nobody touched it.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.rows as rows';

const STYLE = `
.ucid-rows > div { display: flex; flex-wrap: wrap; gap: .3em; align-items: end; margin-bottom: .4em }
.ucid-rows label { display: flex; flex-direction: column; flex: 1 1 8em; min-width: 6em; max-width: 22em; text-align: start; float: none; width: auto; padding: 0; margin: 0; font-weight: normal }
.ucid-rows label.ucid-short { flex: 0 1 7em }
.ucid-rows label.ucid-short:has(> select) { flex: 0 0 auto }
.ucid-rows label.ucid-tick { flex: 0 0 auto; min-width: 0; align-items: center; align-self: stretch }
.ucid-rows label.ucid-tick > input { margin: auto auto .6em }
.ucid-rows small { opacity: .75; line-height: 1.3 }
.ucid-rows input:not([type=checkbox]), .ucid-rows select, .ucid-rows textarea { width: 100%; min-width: 0; max-width: none; box-sizing: border-box; margin: 0 }
.ucid-rows label.ucid-short > select { width: auto }
.ucid-rows textarea { min-height: 3.5em }
@media (max-width: 600px) { .ucid-rows label { flex-basis: 5em; min-width: min-content } .ucid-rows small { min-width: 4.5em } .ucid-rows label.ucid-short { flex: 1 1 3.6em } .ucid-rows label:has(+ button:not(:last-child)) { flex-basis: 72% } }
@media (min-width: 601px) { .ucid-rows > div:has(small) ~ div small { visibility: hidden; height: 0; line-height: 0 } .ucid-form input[type=text][id^=ucid-] { width: 27em; max-width: 100% } }
.ucid-form select { width: auto; max-width: 100% }
.ucid-wide { width: 100%; max-width: 40em; box-sizing: border-box }
.ucid-form ::placeholder { font-style: italic; opacity: .65 }
[data-darkmode=true] .ucid-form ::placeholder { opacity: 1 }
.ucid-form [aria-invalid=true] { outline: 2px solid #c0392b; outline-offset: 0 }
.ucid-error { color: #c0392b; font-weight: bold; margin-top: .3em; white-space: pre-wrap }
.ucid-warning { color: #8a5a00; margin-top: .3em; white-space: pre-wrap }
[data-darkmode=true] .ucid-warning { color: #ffc266 }
.ucid-error:empty, .ucid-warning:empty { display: none }
[data-darkmode=true] .ucid-error { color: #ff8a7a }
.ucid-form details { margin: .6em 0; padding-left: .2em }
.ucid-form summary { cursor: pointer; padding: .35em 0; font-weight: bold }
.ucid-form details details { margin-left: 1em }
.ucid-effect { opacity: .75; font-style: italic }
.ucid-bar { position: sticky; bottom: 0; z-index: 5; padding: .6em 0; border-top: 1px solid; background: var(--background-color-high, #fff) }
.ucid-bar ul { margin: 0 0 .5em 1.2em; padding: 0 }
.ucid-bar p { margin: 0 0 .5em }
`;
let count = 0;

// once a page
function style() {
	if (!document.getElementById('ucid-style'))
		document.head.append(D.el('style', { 'id': 'ucid-style' }, STYLE));
}

function same(one, other) {
	return JSON.stringify(one) === JSON.stringify(other);
}

// what a select offers, with a value that it does not know
function optionsOf(choices, value) {
	const known = choices.some(([ word ]) => word === value);

	return [ ...choices, ...known || value === '' ? [] : [ [ value, value ] ] ].map(([ word, title ]) => D.el('option', { 'value': word, 'selected': word === value ? '' : null }, title));
}

// values that are offered while one types; they may come later
function suggestions(values) {
	const node = D.el('datalist', { 'id': 'ucid-list-%d'.format(++count) });

	Promise.resolve(values).then(found => D.fill(node, found.map(one => D.el('option', { 'value': one })))).catch(() => {});

	return node;
}

function simple(input, nodes, read) {
	return { node: D.el('div', {}, nodes ?? input), input, value: read ?? (() => input.value.trim()), focus: () => input.focus(), mark: isWrong => input.setAttribute('aria-invalid', isWrong ? 'true' : 'false') };
}

function text({ value, placeholder, suggest, more, onInput }) {
	const list = suggest && suggestions(suggest);
	const input = D.el('input', { 'type': 'text', 'class': 'cbi-input-text', 'value': value ?? '', 'placeholder': placeholder, 'list': list?.id, 'autocomplete': 'off', 'spellcheck': 'false', 'input': onInput });

	return simple(input, [ input, list, more && [ ' ', more ] ]);
}

function secretInput(value, attributes) {
	const input = D.el('input', { 'type': 'password', 'class': 'cbi-input-password', 'value': value, 'autocomplete': 'new-password', ...attributes });
	const button = D.el('button', { 'type': 'button', 'class': 'btn cbi-button', 'aria-pressed': 'false', 'click': () => {
		const isShown = input.type === 'text';

		input.type = isShown ? 'password' : 'text';
		button.setAttribute('aria-pressed', isShown ? 'false' : 'true');
		D.fill(button, isShown ? _('Show') : _('Hide'));
	} }, _('Show'));

	return { input, button };
}

function secret({ value, placeholder, onInput }) {
	const { input, button } = secretInput(value ?? '', { 'input': onInput, placeholder });

	return simple(input, [ input, ' ', button ], () => input.value);
}

function choice({ value, choices, unset, onInput }) {
	const select = D.el('select', { 'class': 'cbi-input-select', 'change': onInput }, optionsOf([ [ '', unset ], ...choices ], value ?? ''));

	return simple(select, select, () => select.value);
}

// what is not said is what the schema says; a tick that says no more than that is not written
function flag({ value, standard, onInput }) {
	const box = D.el('input', { 'type': 'checkbox', 'class': 'cbi-input-checkbox', 'checked': (value ?? standard) === '1' ? '' : null, 'change': onInput });

	return simple(box, box, () => {
		const now = box.checked ? '1' : '0';

		return now === standard && value == null ? '' : now;
	});
}

function command({ value, placeholder, onInput }) {
	const area = D.el('textarea', { 'class': 'ucid-wide', 'rows': '2', 'placeholder': placeholder, 'spellcheck': 'false', 'input': onInput });

	area.value = rows.commandText(value);

	return simple(area, area, () => area.value.trim());
}

// one line of a list
class Line {
	constructor(list, entry) {
		this.list = list;
		this.entry = entry;
		this.kind = entry === undefined ? list.kind : list.kind && rows.parse(list.kind, entry) ? list.kind : null;
		this.row = this.kind && (entry === undefined ? rows.blank(this.kind) : rows.parse(this.kind, entry));
		this.text = entry ?? '';
		this.inputs = new Map();
		this.node = D.el('div', {}, this.kind ? this.kind.columns.map(column => this.cell(column)) : this.whole(),
			D.el('button', { 'type': 'button', 'class': 'btn cbi-button', 'title': _('Remove'), 'aria-label': _('Remove'), 'click': () => list.drop(this) }, '×'));
	}

	isBlank() {
		return this.kind ? rows.isBlank(this.kind, this.row) : this.text === '';
	}

	value() {
		if (!this.isTouched)
			return this.entry;

		return this.kind ? rows.format(this.kind, this.row) : this.text;
	}

	touch(column, value) {
		this.isTouched = true;

		if (column === null)
			this.text = value;
		else
			this.row[column] = value;

		this.list.changed(this);
	}

	// an entry that is one text
	whole() {
		const isLong = this.text.includes('\n');
		const input = D.el(isLong ? 'textarea' : 'input', { 'type': isLong ? null : 'text', 'placeholder': this.list.placeholder, 'spellcheck': 'false', 'autocomplete': 'off', 'list': this.list.lists.entry?.id, 'aria-label': this.list.title, 'input': () => this.touch(null, input.value) });

		input.value = this.text;
		this.inputs.set(null, input);

		return D.el('label', { 'class': 'ucid-wide' }, input);
	}

	cell(column) {
		const value = this.row[column], title = rows.titleOf(column), choices = rows.choicesOf(column);
		let input, extra = null;

		if (rows.isFlag(column)) {
			input = D.el('input', { 'type': 'checkbox', 'checked': value === '1' ? '' : null, 'change': () => this.touch(column, input.checked ? '1' : '0') });
		} else if (choices) {
			input = D.el('select', { 'change': () => this.touch(column, input.value) }, optionsOf(choices, value));
		} else if (this.kind.secret === column && this.list.hides(this.row)) {
			({ input, button: extra } = secretInput(value, { 'input': () => this.touch(column, input.value) }));
		} else {
			input = D.el('input', { 'type': 'text', 'value': value, 'placeholder': rows.emptyOf(column), 'list': this.list.lists[column]?.id, 'autocomplete': 'off', 'spellcheck': 'false', 'input': () => this.touch(column, input.value) });
			extra = this.list.helpers[column]?.(found => {
				input.value = found;
				this.touch(column, found);
			}) ?? null;
		}

		input.setAttribute('aria-label', title); // only the first row shows its titles
		this.inputs.set(column, input);

		const width = rows.isFlag(column) ? 'ucid-tick' : [ 'host', 'inner', 'protocol', 'rights', 'soft', 'hard', 'more' ].includes(column) ? 'ucid-short' : '';

		return [ D.el('label', { 'class': width }, D.el('small', {}, title), input), extra ];
	}

	mark(column) {
		for (const [ name, input ] of this.inputs)
			input.setAttribute('aria-invalid', column !== undefined && (column === null || name === column || name === null) ? 'true' : 'false');
	}
}

// all entries, and an empty line at the end that becomes one when it is written into
class List {
	constructor({ value, kind, title, placeholder, suggest, helpers, hides, onInput }) {
		this.kind = kind;
		this.title = title;
		this.placeholder = placeholder;
		this.onInput = onInput;
		this.given = value ?? [];
		this.helpers = helpers ?? {};
		this.hides = hides ?? (() => false);
		this.lists = Object.fromEntries(Object.entries(suggest ?? {}).map(([ column, values ]) => [ column, suggestions(values) ]));
		this.place = D.el('div', { 'class': 'ucid-rows', 'role': 'group', 'aria-label': title });
		this.node = D.el('div', {}, this.place, Object.values(this.lists));
		this.fill(this.given);
	}

	fill(entries) {
		this.lines = entries.map(entry => new Line(this, entry));
		D.fill(this.place, this.lines.map(line => line.node));
		this.open();
	}

	// other entries than those that were there
	replace(entries) {
		this.fill(entries);
		this.isReplaced = true;
		this.onInput();
	}

	open() {
		if (this.lines.length && this.lines.at(-1).isBlank())
			return;

		const line = new Line(this, undefined);

		this.lines.push(line);
		this.place.append(line.node);
	}

	changed() {
		this.open();
		this.onInput();
	}

	drop(line) {
		this.lines = this.lines.filter(one => one !== line);
		line.node.remove();
		this.isReplaced = true;
		this.open();
		this.lines.at(-1).inputs.values().next().value.focus();
		this.onInput();
	}

	filled() {
		return this.lines.filter(line => !line.isBlank());
	}

	value() {
		return this.isReplaced || this.lines.some(line => line.isTouched) ? this.filled().map(line => line.value()) : this.given;
	}

	// words of what is wrong, '' for nothing; `check` is that of one entry
	wrong(check) {
		const lines = this.filled();
		let found = '';

		for (const [ index, line ] of lines.entries()) {
			const row = line.kind && rows.wrong(line.kind, line.row);
			const said = row ? row[1] : check(line.value(), index);

			line.mark(said ? row?.[0] ?? null : undefined);
			found ||= said;
		}

		return found;
	}

	mark(isWrong, index) {
		const lines = this.filled();

		lines.forEach((line, at) => line.mark(isWrong && (index == null || at === index) ? null : undefined));
	}

	focus() {
		const line = this.lines.find(one => [ ...one.inputs.values() ].some(input => input.getAttribute('aria-invalid') === 'true')) ?? this.lines[0];

		([ ...line.inputs.values() ].find(input => input.getAttribute('aria-invalid') === 'true') ?? line.inputs.values().next().value).focus();
	}
}

// ticks for the entries of a list that are known, and a line for each other one; `known`: entries, or pairs with words for them
function ticks({ value, known, onInput, title }) {
	const given = value ?? [], place = D.el('div', { 'role': 'group', 'aria-label': title }), boxes = new Map();
	const rest = () => given.filter(entry => !boxes.has(entry));
	const list = new List({ value: [], kind: undefined, title, onInput });
	let isTouched = false;

	for (const [ name, words ] of known.map(one => [ one ].flat())) {
		const box = D.el('input', { 'type': 'checkbox', 'checked': given.includes(name) ? '' : null, 'change': () => {
			isTouched = true;
			onInput();
		} });

		boxes.set(name, box);
		place.append(D.el('label', { 'style': 'display:inline-block;margin-right:1em' }, [ box, ' ', words ?? name ]));
	}

	list.fill(rest());

	return {
		node: D.el('div', {}, place, known.length ? null : list.node, known.length && rest().length ? list.node : null),
		value: () => isTouched || !same(list.value(), []) && list.isReplaced || list.lines.some(line => line.isTouched) ? [ ...[ ...boxes.keys() ].filter(name => boxes.get(name).checked), ...list.value() ] : given,
		wrong: check => list.wrong(check), mark: isWrong => list.mark(isWrong), focus: () => (boxes.values().next().value ?? list).focus()
	};
}

const MAKERS = { text, secret, choice, flag, command, ticks, list: options => new List(options) };

return baseclass.extend({
	same, suggestions,

	// `kind` is text, secret, choice, flag, command, list or ticks; `onInput` is called when something is typed or chosen
	make(kind, options) {
		style();

		return MAKERS[kind](options);
	}
});
