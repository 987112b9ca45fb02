// SPDX-License-Identifier: GPL-2.0-or-later
// Elements, dialogues and notices for the pages. LuCI's E(), the title of its dialogues and of its notices make HTML of a bare
// string, and names, labels and logs come from strangers: here a string is a text node, always. Only here are LuCI's own called.
'use strict';
'require baseclass';
'require ui';

const COLOURS = { ok: 'success', waiting: 'notice', warning: 'warning', error: 'important', off: '' };
const RED = 'background:#b94a48;color:#fff'; // themes differ in what is important

function nodes(content) {
	return [ content ].flat(Infinity).filter(one => one !== null && one !== undefined && one !== false)
		.map(one => one instanceof Node ? one : document.createTextNode(String(one)));
}

function el(name, attributes, ...content) {
	return E(name, attributes ?? {}, nodes(content));
}

// LuCI's own errors carry the stack in their message
function wordsOf(error) {
	return String(error.message).replace(/\n\s+at [^]*$/, '');
}

function rowOf(titles, cells) {
	return el('tr', { 'class': 'tr' }, cells.map((cell, index) => el('td', { 'class': 'td', 'data-title': titles[index] }, cell)));
}

return baseclass.extend({
	el,
	wordsOf,

	// for the few places of LuCI's forms that take markup
	escape(text) {
		return String(text).replace(/[&<>"']/g, char => '&#%d;'.format(char.charCodeAt(0)));
	},

	// what `node` shows from now on
	fill(node, ...content) {
		node.replaceChildren(...nodes(content));

		return node;
	},

	table(titles, rows, none) {
		const head = el('tr', { 'class': 'tr table-titles' }, titles.map(title => el('th', { 'class': 'th' }, title)));
		const body = rows.length ? rows.map(cells => rowOf(titles, cells))
			: el('tr', { 'class': 'tr placeholder' }, el('td', { 'class': 'td' }, none ?? _('nothing here')));

		return el('table', { 'class': 'table' }, head, body);
	},

	// [[name, value], ...]
	facts(pairs) {
		return el('table', { 'class': 'table' }, pairs.map(([ name, value ]) => el('tr', { 'class': 'tr' },
			el('td', { 'class': 'td left', 'style': 'width:33%' }, name), el('td', { 'class': 'td left' }, value))));
	},

	badge(level, text) {
		return el('span', { 'class': 'label %s'.format(COLOURS[level]), 'style': level === 'error' ? RED : null }, text);
	},

	// only to web pages, and without telling where from
	link(href, text) {
		return (/^https?:\/\//).test(href) ? el('a', { href, target: '_blank', rel: 'noopener noreferrer' }, text) : el('span', {}, text);
	},

	page(path, text, part) {
		const href = L.url('admin/services/ucidockd', ...[ path ].flat().map(encodeURIComponent));

		return el('a', { href: part ? '%s#%s'.format(href, encodeURIComponent(part)) : href }, text);
	},

	// a button that waits for `action` and shows what went wrong; null for a login that may only read
	button(kind, text, action) {
		if (!L.hasViewPermission())
			return null;

		return this.always(kind, text, action);
	},

	always(kind, text, action) {
		return el('button', { 'class': 'btn cbi-button cbi-button-%s'.format(kind), 'click': ui.createHandlerFn(this, () => this.attempt(action)) }, text);
	},

	attempt(action) {
		return Promise.resolve().then(action).catch(error => {
			this.notify('error', wordsOf(error));
		});
	},

	// a notice above the page; `kind` is info, warning or error
	notify(kind, ...content) {
		ui.addNotification(null, el('p', { 'style': 'white-space:pre-wrap' }, content), kind);
	},

	// a dialogue; gives what closes it
	dialogue(title, ...content) {
		ui.showModal([ String(title) ], nodes(content));

		return () => ui.hideModal();
	},

	// one that only shows something
	show(title, ...content) {
		this.dialogue(title, ...content, el('div', { 'class': 'right' }, el('button', { 'class': 'btn', 'click': () => ui.hideModal() }, _('Close'))));
	},

	// asks first; `consequences` are named one a line
	ask(title, consequences, label, action) {
		const close = () => ui.hideModal();

		this.dialogue(title,
			consequences.map(text => el('p', {}, text)),
			el('div', { 'class': 'right' },
				el('button', { 'class': 'btn', 'click': close }, _('Cancel')), ' ',
				el('button', { 'class': 'btn cbi-button-negative', 'click': ui.createHandlerFn(this, () => this.attempt(action).finally(close)) }, label)));
	},

	// says so while the agent cannot be reached
	connection(live) {
		const node = el('div', { 'class': 'alert-message warning', 'style': 'display:none' });

		live.onConnection((connected, error) => {
			node.style.display = connected ? 'none' : '';
			this.fill(node, error?.name === 'SessionError' ? _('Your session has ended. Log in again.') : [ _('The agent does not answer; trying again.'), ' ', error ? wordsOf(error) : '' ]);
		});

		return node;
	}
});
