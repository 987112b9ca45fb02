// SPDX-License-Identifier: GPL-2.0-or-later
// Elements, dialogues and notices for the pages. LuCI's E(), the title of its dialogues and of its notices make HTML of a bare
// string, and names, labels and logs come from strangers: here a string is a text node, always. Only here are LuCI's own called.
'use strict';
'require baseclass';
'require ui';
'require ucidockd.format as format';
'require ucidockd.sentences as sentences';
'require ucidockd.style as style';

const FIELD = 'input:not([disabled]), select, textarea', REACHED = FIELD + ', button:not([disabled]), a[href], summary';
let opener = null; // the button that was pressed last

// where the keyboard goes when a dialogue closes
function goBack() {
	const target = opener?.closest('.ucidockd-menu')?.firstChild ?? opener;

	if (target?.isConnected)
		target.focus();
}

// a key in a dialogue
function keyIn(node, event) {
	const reached = [ ...node.querySelectorAll(REACHED) ].filter(one => one.offsetParent), [ from, to ] = event.shiftKey ? [ reached[0], reached.at(-1) ] : [ reached.at(-1), reached[0] ];

	if (event.key === 'Tab' && document.activeElement === from) {
		event.preventDefault();
		to.focus();
	} else if (event.key === 'Enter' && event.target.matches('input:not([type=checkbox], [type=radio], [type=file])')) {
		event.preventDefault();
		node.querySelector('.right > button:last-of-type').click();
	}
}

function nodes(content) {
	return [ content ].flat(Infinity).filter(one => one !== null && one !== undefined && one !== false)
		.map(one => one instanceof Node ? one : document.createTextNode(String(one)));
}

// a text that may scroll is reached by the keyboard too
function el(name, attributes, ...content) {
	return E(name, name === 'pre' ? { 'tabindex': 0, ...attributes } : attributes ?? {}, nodes(content));
}

// words in backticks as code, long ids cut
const coded = text => format.cut(text).split('`').map((part, index) => index % 2 ? el('code', {}, part) : part);

// LuCI's own errors carry the stack in their message
function wordsOf(error) {
	if ((/^RPC call to (?:ucidockd|docker)\S* failed with error -32000/).test(error.message))
		return _('The agent does not answer.');

	// how it was lost, the Overview says
	if (error.code === 'engine-unreachable')
		return _('Docker does not answer.');

	if ((/^XHR request (?:aborted|timed out)/).test(error.message))
		return _('The router does not answer.');

	return sentences.say(String(error.message).replace(/\n\s+at [^]*$/, ''));
}

// these children and no others; those that are there already stay untouched, with the keyboard and what is open in them
function place(node, wanted) {
	const kept = new Set(wanted), focused = document.activeElement;

	[ ...node.childNodes ].filter(one => !kept.has(one)).forEach(one => one.remove());
	wanted.forEach((one, index) => node.childNodes[index] === one || node.insertBefore(one, node.childNodes[index] ?? null));

	// a row that goes to the end moves all the others, and a browser takes the focus from what is moved
	if (focused !== document.activeElement && node.contains(focused))
		focused.focus({ preventScroll: true });
}

function rowOf(titles, cells) {
	return el('tr', { 'class': 'tr' }, cells.map((cell, index) => el('td', { 'class': cell?.matches?.('[type=checkbox]') ? 'td ucidockd-tick' : 'td', 'data-title': titles[index] }, cell)));
}

function groupOf(titles, content) {
	return el('tr', { 'class': 'tr' }, el('th', { 'class': 'td ucidockd-group', 'colspan': titles.length, 'scope': 'rowgroup' }, content));
}

function headOf(titles) {
	return el('tr', { 'class': 'tr table-titles' }, titles.map(title => title === '' ? el('td', { 'class': 'th' }) : el('th', { 'class': 'th', 'scope': 'col' }, title)));
}

function placeholder(titles, none) {
	return el('tr', { 'class': 'tr placeholder' }, el('td', { 'class': 'td', 'colspan': titles.length }, none));
}

document.head?.append(el('style', {}, style.sheet));

return baseclass.extend({
	el,
	place,
	wordsOf,

	// one after the other, a comma between them
	listed: items => items.length ? items.flatMap((item, index) => index ? [ ', ', item ] : [ item ]) : '-',

	coded,

	// what the agent says, in the user's language
	said: text => coded(sentences.say(text)),

	// what `node` shows from now on
	fill(node, ...content) {
		node.replaceChildren(...nodes(content));
		return node;
	},

	table(titles, rows, none) {
		return el('table', { 'class': 'table ucidockd-list' }, headOf(titles), rows.length ? rows.map(cells => rowOf(titles, cells)) : placeholder(titles, none ?? _('nothing here')));
	},

	// A table that is drawn again and again: {node, draw, forget}. `draw` takes [{key, sign, cells()}, ...]; a row whose `sign` is as
	// before stays as it is, so that a menu stays open and the keyboard where it was. One with `isHeading` has one cell.
	// `unknown`: why there may be rows, and none can be shown
	keyed(titles, none) {
		const node = el('table', { 'class': 'table ucidockd-list' }), head = headOf(titles);
		let known = new Map();

		return { node, draw: (rows, unknown) => {
			const next = new Map(rows.map(row => {
				const old = known.get(row.key);

				return [ row.key, old?.sign === row.sign ? old : { sign: row.sign, node: row.isHeading ? groupOf(titles, row.cells()) : rowOf(titles, row.cells()) } ];
			}));
			const wanted = [ head, ...(rows.length ? [ ...next.values() ].map(one => one.node) : [ placeholder(titles, unknown || none) ]) ];

			known = next;
			place(node, wanted);
		}, forget: keys => keys.forEach(key => known.delete(key)) };
	},

	// a text that a screen reader says when it changes
	spoken: (name, attributes, ...content) => el(name, { ...attributes, 'aria-live': 'polite' }, ...content),

	// a field with its name, which a click on it and a screen reader find
	labelled: (text, field) => el('label', { 'class': 'ucidockd-labelled' }, el('span', {}, text), field),

	select: (name, choices, change) => el('select', { 'aria-label': name, change }, choices.map(([ value, words ]) => el('option', { value }, words))),

	// a search field, as wide as its words
	search: (name, input) => el('input', { 'type': 'text', 'size': Math.max(20, name.length), 'placeholder': name, 'aria-label': name, input }),

	bar: (...content) => el('div', { 'class': 'ucidockd-bar' }, content),

	// what is pressed less often, behind one button; `items`: buttons and links
	menu(title, items) {
		const found = items.flat(Infinity).filter(Boolean);

		if (!found.length)
			return null;

		const node = el('details', { 'class': 'ucidockd-menu' }, el('summary', { 'class': 'btn cbi-button', 'role': 'button', 'aria-haspopup': 'true', 'aria-expanded': 'false' }, title), el('div', {}, found));
		const close = event => {
			if (event.type === 'keydown' ? event.key !== 'Escape' : node.contains(event.target))
				return;

			node.contains(document.activeElement) && node.firstChild.focus();
			node.open = false;
		};

		node.addEventListener('toggle', () => {
			node.firstChild.setAttribute('aria-expanded', String(node.open));
			[ 'click', 'keydown' ].forEach(type => document[node.open ? 'addEventListener' : 'removeEventListener'](type, close, true));
		});
		node.addEventListener('click', event => event.target.closest('.ucidockd-menu > div > *') && (node.open = false));

		return node;
	},

	// how full something is
	meter(title, used, total, text) {
		const percent = total > 0 ? Math.max(0, Math.min(100, Math.round(used / total * 100))) : 0;

		return el('div', {}, title, el('div', { 'class': 'cbi-progressbar', 'title': text, 'role': 'meter', 'aria-label': title, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': percent, 'aria-valuetext': text },
			el('div', { 'style': 'width:%d%%'.format(percent) })));
	},

	// Tabs of a page: [{name, title, make}, ...]. What `make` gives is made when its tab is first shown; the address names the tab after its #.
	tabs(all) {
		const panes = new Map(), pane = el('div', { 'role': 'tabpanel' });
		const heads = new Map(all.map(({ name, title }) => [ name, el('li', { 'class': 'cbi-tab-disabled', 'data-tab': name, 'role': 'presentation' },
			el('a', { 'href': '#' + name, 'role': 'tab', 'id': 'tab-' + name }, title)) ]));
		const show = wanted => {
			const { name, make } = all.find(one => one.name === wanted) ?? all[0];

			heads.forEach((head, each) => {
				head.className = each === name ? 'cbi-tab' : 'cbi-tab-disabled';
				head.firstChild.setAttribute('aria-selected', String(each === name));
				head.firstChild.tabIndex = each === name ? 0 : -1;
			});

			if (!panes.has(name))
				panes.set(name, pane.appendChild(el('div', { 'aria-labelledby': 'tab-' + name }, make())));

			panes.forEach((node, each) => node.style.display = each === name ? '' : 'none');
		};
		const named = () => decodeURIComponent(location.hash.slice(1)).split('=')[0]; // what is after a = is for the tab

		// the arrow keys go from tab to tab, the tabulator into the one that is shown
		const step = event => {
			const links = [ ...heads.values() ].map(head => head.firstChild), at = links.indexOf(document.activeElement);
			const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + links.length, Home: 0, End: links.length - 1 }[event.key];

			if (at < 0 || to === undefined)
				return;

			event.preventDefault();
			links[to % links.length].focus();
			links[to % links.length].click();
		};

		window.addEventListener('hashchange', () => show(named()));
		show(named());

		return el('div', {}, el('ul', { 'class': 'cbi-tabmenu', 'role': 'tablist', 'keydown': step }, [ ...heads.values() ]), pane);
	},

	// [[name, value], ...]
	facts: pairs => el('table', { 'class': 'table' }, pairs.map(([ name, value ]) => el('tr', { 'class': 'tr' },
		el('td', { 'class': 'td left', 'style': 'width:33%' }, name), el('td', { 'class': 'td left ucidockd-any' }, value)))),

	badge: (level, text) => el('span', { 'class': 'label', 'style': 'text-transform:none;text-shadow:none;background:%s'.format(style.badges[level] ?? style.badges.off) }, text),

	// what `status.verdict` gives: its state, why, and what helps
	verdict({ level, label, message, advice }) {
		return el('div', {}, this.badge(level, label), ' ', el('small', {}, coded(message)), advice && el('div', {}, el('small', {}, coded(advice))));
	},

	// only to web pages, and without telling where from
	link: (href, text) => (/^https?:\/\//).test(href) ? el('a', { href, target: '_blank', rel: 'noopener noreferrer' }, text) : el('span', {}, text),

	page(path, text, part, style) {
		const href = L.url('admin/services/ucidockd', ...[ path ].flat().map(encodeURIComponent));

		return el('a', { 'href': part ? '%s#%s'.format(href, encodeURIComponent(part)) : href, 'class': style }, text);
	},

	// a button that waits for `action` and shows what went wrong; null for a login that may only read
	button(kind, text, action) {
		if (!L.hasViewPermission())
			return null;

		return this.always(kind, text, action);
	},

	always(kind, text, action) {
		const button = el('button', { 'type': 'button', 'class': 'btn cbi-button cbi-button-%s'.format(kind), 'click': ui.createHandlerFn(this, () => {
			opener = button;

			// it was disabled meanwhile, which took the keyboard from it
			return this.attempt(action).finally(() => window.setTimeout(() => document.activeElement === document.body && button.focus()));
		}) }, text);

		return button;
	},

	// the place of what `load` gives; where a part of the page cannot be fetched it says so, and offers to try again
	later(load) {
		const place = el('div', {}, _('Loading…'));
		const failed = error => this.fill(place, el('p', { 'class': 'alert-message error', 'role': 'alert' }, coded(_('A part of this page could not be loaded: %s').format(wordsOf(error)))), el('button', { 'type': 'button', 'class': 'btn cbi-button', 'click': () => location.reload() }, _('Reload the page')));

		load().then(content => this.fill(place, content)).catch(failed);

		return place;
	},

	attempt(action) {
		return Promise.resolve().then(action).catch(error => this.notify('error', wordsOf(error)));
	},

	// a notice above the page, which is seen from any place of it; `kind` is info, warning or error
	notify(kind, ...content) {
		const seen = document.querySelector('.ucidockd-notices'), notice = ui.addNotification(null, el('p', { 'role': kind === 'error' ? 'alert' : 'status', 'style': 'white-space:pre-wrap' }, content.flat(Infinity).map(one => typeof one === 'string' ? coded(one) : one)), kind);
		(seen ?? notice.parentNode.insertBefore(el('div', { 'class': 'ucidockd-notices' }), notice)).prepend(notice);
	},

	// A dialogue with its buttons, the one that acts last; gives what closes it. The keyboard stays in it, Enter in a field presses
	// that button, Escape the first one (LuCI's doing), and the keyboard goes back to what opened it.
	dialogue(title, content, buttons) {
		const node = ui.showModal([ String(title) ], nodes([ content, el('div', { 'class': 'right' }, buttons.flatMap(button => [ button, ' ' ])) ])), head = node.firstChild;

		node.setAttribute('aria-label', title);
		node.onkeydown = event => keyIn(node, event);
		(node.querySelector(FIELD) ?? (buttons.at(-1).matches('.cbi-button-negative') ? buttons[0] : buttons.at(-1))).focus();

		// another one may be in its place by now, as LuCI's own while it applies a change
		return () => {
			if (node.firstChild !== head)
				return;

			ui.hideModal();
			goBack();
		};
	},

	// one that only shows something
	show(title, ...content) {
		const close = this.dialogue(title, content, [ el('button', { 'type': 'button', 'class': 'btn', 'click': () => close() }, _('Close')) ]);
	},

	// Asks first: `content` are lines of what it does, or nodes; `kind`: negative where something is lost. What goes wrong is told
	// in the dialogue, which stays.
	ask(title, content, label, action, kind) {
		const error = el('p', { 'class': 'alert-message error', 'role': 'alert', 'style': 'display:none;white-space:pre-wrap' });
		const act = () => Promise.resolve().then(action).then(() => close(), wrong => {
			error.style.display = '';
			this.fill(error, coded(wordsOf(wrong)));
		});
		const close = this.dialogue(title, [ content.map(one => typeof one === 'string' ? el('p', {}, coded(one)) : one), error ], [
			el('button', { 'type': 'button', 'class': 'btn', 'click': () => close() }, _('Cancel')),
			el('button', { 'type': 'button', 'class': 'btn cbi-button cbi-button-%s'.format(kind ?? 'apply'), 'click': ui.createHandlerFn(this, act) }, label)
		]);
	},

	// says so while the agent cannot be reached
	connection(live) {
		const node = el('div', { 'class': 'alert-message warning', 'role': 'alert', 'style': 'display:none' });

		live.onConnection((connected, error) => {
			node.style.display = connected ? 'none' : '';
			this.fill(node, error?.name === 'SessionError' ? _('Your session has ended. Log in again.') : _('The agent does not answer. Trying again.'));
		});

		return node;
	}
});
