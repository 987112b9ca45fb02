// SPDX-License-Identifier: GPL-2.0-or-later
// In place of LuCI: its loader, elements and calls, as much as the modules use. `show` puts one of them on the page.
import { baseclass, instanceOf, needsOf } from '../standin.mjs';

const SESSION = new URLSearchParams(location.search).get('session');
const HOSTILE = new URLSearchParams(location.search).has('hostile');
const RESOURCES = '/luci-static/resources';

globalThis.L = {
	env: { token: 'none' },
	resource: path => `${RESOURCES}/${path}`,
	url: (...words) => `/${words.join('/')}`,
	hasViewPermission: () => true,
	resolveDefault: (promise, value) => Promise.resolve(promise).catch(() => value)
};

// as dangerous as LuCI's: a string becomes HTML, only in a list it is text
function append(node, children) {
	if (Array.isArray(children))
		node.append(...children.filter(one => one !== null && one !== undefined));
	else if (children instanceof Node)
		node.append(children);
	else if (children !== null && children !== undefined)
		node.innerHTML = `${children}`;
}

const E = globalThis.E = (name, attributes, children) => {
	const node = document.createElement(name);
	for (const [ key, value ] of Object.entries(attributes))
		if (typeof value === 'function')
			node.addEventListener(key, value);
		else if (value !== null && value !== undefined)
			node.setAttribute(key, value);
	append(node, children);
	return node;
};

// What a stranger could have written in an answer: markup in every text, but for the words that pages decide by.
const WORDS = new Set([ 'Id', 'ID', 'ImageID', 'id', 'object', 'object_id', 'section', 'kind', 'status', 'verdict', 'state', 'State', 'Type', 'level' ]);
const NAMES = new Set([ 'Labels', 'Attributes', 'Networks' ]);
let marks = 0;

const marked = text => `${text}<img src=x onerror="(window.ran ??= []).push(${marks++})">`;

function hostile(value, key) {
	if (typeof value === 'string')
		return WORDS.has(key) ? value : marked(value);
	if (Array.isArray(value))
		return value.map(one => hostile(one, key));
	if (!value || typeof value !== 'object')
		return value;
	if (typeof value.stream === 'number' && value.name) // an item of a stream
		return value.name === 'opened' ? value : { ...value, ...(value.json === undefined ? {} : { json: hostile(value.json) }), ...(value.text === undefined ? {} : { text: value.text.replaceAll('\n', `${marked('')}\n`) }) };
	return Object.fromEntries(Object.entries(value).map(([ name, one ]) => [ NAMES.has(key) ? marked(name) : name, hostile(one, name) ]));
}

async function call(object, method, params) {
	const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'call', params: [ SESSION, object, method, params ] });
	const { result, error } = await (await fetch('/ubus', { method: 'POST', body })).json();
	if (error)
		throw Object.assign(new Error('Login session is expired'), { name: 'SessionError' });
	if (result[0] !== 0)
		throw new Error(`${object} ${method}: ubus code ${result[0]}`);
	return HOSTILE ? hostile(result[1]) : result[1];
}

window.config = {}; // /etc/config, by file and section

const GIVEN = {
	baseclass,
	view: baseclass,
	uci: {
		load: async () => {},
		get: (config, id, option) => option === undefined ? window.config[config]?.[id] ?? null : window.config[config]?.[id]?.[option] ?? null,
		sections: (config, type) => Object.values(window.config[config] ?? {}).filter(one => !type || one['.type'] === type),
		add: (config, type, id) => (window.config[config] ??= {})[id] = { '.type': type, '.name': id },
		set: (config, id, option, value) => window.config[config][id][option] = value,
		unset: (config, id, option) => delete window.config[config][id][option],
		remove: (config, id) => delete window.config[config][id],
		save: async () => {}
	},
	ui: {
		createHandlerFn: (self, action) => () => action.call(self),
		addNotification: (title, children) => {
			const note = document.getElementById('notes').appendChild(E('div', {}));
			title === null || note.append(E('h4', {}, title));
			append(note.appendChild(E('div', {})), children);
		},
		showModal: (title, children) => {
			const dialogue = document.getElementById('modal');
			dialogue.replaceChildren(E('h4', {}, title));
			append(dialogue, children);
			window.dialogues = (window.dialogues ?? 0) + 1;
			return dialogue;
		},
		changes: { init: async () => {}, apply: async () => window.applied = (window.applied ?? 0) + 1 },
		hideModal: () => document.getElementById('modal').replaceChildren(),
	},
	rpc: {
		getSessionID: () => SESSION,
		getBaseURL: () => '/ubus',
		declare: ({ object, method, params }) => (...values) => call(object, method, Array.isArray(params)
			? Object.fromEntries(params.map((name, index) => [ name, values[index] ])) : values[0] ?? {})
	}
};

const sources = new Map(), fetching = new Map();

async function fetchSource(name) {
	const source = await (await fetch(`${RESOURCES}/${name.replaceAll('.', '/')}.js`)).text();
	sources.set(name, source);
	await Promise.all(needsOf(source).map(([ path ]) => fetchSources(path)));
}

async function fetchSources(name) {
	if (name in GIVEN)
		return;
	if (!fetching.has(name))
		fetching.set(name, fetchSource(name));
	await fetching.get(name);
}

function instance(name) {
	return GIVEN[name] ??= instanceOf(sources.get(name), instance);
}

L.require = async name => {
	await fetchSources(name);
	return instance(name);
};

/** Puts what `make` of a module gives on the page; it is `window.shown`. */
window.show = async (name, options, begin = 'start') => {
	await fetchSources(name);
	const shown = window.shown = instance(name).make(options ?? (() => {}));
	document.getElementById('view').replaceChildren(shown.render?.() ?? shown.node);
	await shown[begin]();
};

/** Puts the node that a module's method gives on the page. */
window.put = async (name, method, ...values) => {
	await fetchSources(name);
	document.getElementById('view').replaceChildren(await instance(name)[method](...values));
};

/** Puts a page of the app on the page; `id` is the last word of its address. */
window.view = async (name, id) => {
	history.replaceState(null, '', `/pages/${id}${location.search}`);
	await fetchSources(`view.ucidockd.${name}`);
	const shown = window.shown = instance(`view.ucidockd.${name}`);
	document.getElementById('view').replaceChildren(shown.render(await shown.load()));
};
window.ready = true;
