// SPDX-License-Identifier: GPL-2.0-or-later
// In place of LuCI: its loader, elements and calls, as much as the modules use. `show` puts one of them on the page.
import { baseclass, instanceOf, needsOf } from '../standin.mjs';

const IN_APP = location.pathname.startsWith('/admin/'); // a page of the app at its own address, on the router's own files
const SESSION = new URLSearchParams(location.search).get('session') ?? sessionStorage.session;
const HOSTILE = new URLSearchParams(location.search).has('hostile');
const READER = new URLSearchParams(location.search).has('reader'); // may change nothing
const RESOURCES = '/luci-static/resources';

sessionStorage.session = SESSION;

globalThis.L = {
	env: { token: 'none' },
	resource: path => `${RESOURCES}/${path}`,
	url: (...words) => `/${words.join('/')}`,
	hasViewPermission: () => !READER,
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
const WORDS = new Set([ '.type', '.name', 'Id', 'ID', 'ImageID', 'id', 'object', 'object_id', 'section', 'kind', 'status', 'verdict', 'state', 'State', 'Type', 'level' ]);
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

async function post(body) {
	return (await fetch('/ubus', { method: 'POST', body: JSON.stringify(body) })).json();
}

// what is asked for before the next frame goes out in one request, but for what a call says to send alone, as in LuCI's rpc.js
let waiting = null;

function together(message) {
	if (!waiting) {
		const messages = [], answers = new Promise((done, failed) => requestAnimationFrame(() => {
			waiting = null;
			post(messages).then(done, failed);
		}));

		waiting = { messages, answers };
	}

	const place = waiting.messages.push(message) - 1;

	return waiting.answers.then(all => all[place]);
}

async function call(object, method, params, alone = true) {
	const message = { jsonrpc: '2.0', id: 1, method: 'call', params: [ SESSION, object, method, params ] };
	const { result, error } = await (alone ? post(message) : together(message));
	if (error)
		throw Object.assign(new Error('Login session is expired'), { name: 'SessionError' });
	if (result[0] !== 0)
		throw new Error(`${object} ${method}: ubus code ${result[0]}`);
	return HOSTILE ? hostile(result[1]) : result[1];
}

window.config = {}; // /etc/config, by file and section
const written = new Set(); // files that are not saved yet

function changed(config) {
	written.add(config);
	return window.config[config];
}

// in the app the router's own files are read and written; else what a test has put into `config`
async function loadFile(name) {
	window.config[name] = (await call('uci', 'get', { config: name }, false)).values;
}

async function apply() {
	window.applied = (window.applied ?? 0) + 1;
	if (!IN_APP)
		return;
	await Promise.all([ ...written ].map(config => call('uci', 'put', { config, values: window.config[config] })));
	location.replace(location.pathname);
}

const GIVEN = {
	baseclass,
	view: baseclass,
	uci: {
		load: async names => {
			if (IN_APP)
				await Promise.all([ names ].flat().filter(name => !(name in window.config)).map(loadFile));
		},
		get: (config, id, option) => option === undefined ? window.config[config]?.[id] ?? null : window.config[config]?.[id]?.[option] ?? null,
		sections: (config, type) => Object.values(window.config[config] ?? {}).filter(one => !type || one['.type'] === type),
		add: (config, type, id) => (window.config[config] ??= {}) && (changed(config)[id] = { '.type': type, '.name': id }),
		set: (config, id, option, value) => changed(config)[id][option] = value,
		unset: (config, id, option) => delete changed(config)[id][option],
		remove: (config, id) => delete changed(config)[id],
		save: async () => {}
	},
	ui: {
		createHandlerFn: (self, action) => () => action.call(self),
		addNotification: (title, children) => {
			const note = document.getElementById('notes').appendChild(E('div', {}));
			title === null || note.append(E('h4', {}, title));
			append(note.appendChild(E('div', {})), children);

			return note;
		},
		showModal: (title, children) => {
			const dialogue = document.getElementById('modal');
			dialogue.replaceChildren(E('h4', {}, title));
			append(dialogue, children);
			window.dialogues = (window.dialogues ?? 0) + 1;
			return dialogue;
		},
		changes: { init: async () => {}, apply },
		hideModal: () => document.getElementById('modal').replaceChildren(),
	},
	rpc: {
		getSessionID: () => SESSION,
		getBaseURL: () => '/ubus',
		list: async name => (await post({ jsonrpc: '2.0', id: 1, method: 'list', params: [ name ] })).result,
		declare: ({ object, method, params, nobatch }) => (...values) => call(object, method, Array.isArray(params)
			? Object.fromEntries(params.map((name, index) => [ name, values[index] ])) : values[0] ?? {}, nobatch)
	}
};

const sources = new Map(), fetching = new Map();

// Chromium breaks off what it fetches when an interface comes or goes, as the bridges of a test's engine do.
async function fetchText(url) {
	try {
		return await (await fetch(url)).text();
	}
	catch {
		return (await fetch(url)).text();
	}
}

async function fetchSource(name) {
	const source = await fetchText(`${RESOURCES}/${name.replaceAll('.', '/')}.js`);
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

async function draw(name) {
	await fetchSources(`view.ucidockd.${name}`);
	const shown = window.shown = instance(`view.ucidockd.${name}`);
	document.getElementById('view').replaceChildren(shown.render(await shown.load()));
}

/** Puts a page of the app on the page; `id` is the last word of its address. */
window.view = async (name, id) => {
	history.replaceState(null, '', `/pages/${id}${location.search}`);
	await draw(name);
};

// LuCI's menu of the app, and the page that the address names
async function drawApp() {
	const menu = Object.entries(await (await fetch('/menu.d/luci-app-ucidockd.json')).json()).filter(([ , entry ]) => entry.title && entry.action.type === 'view');
	document.getElementById('menu').replaceChildren(...menu.map(([ path, { title } ]) => E('a', { 'href': `/${path}`, 'aria-current': location.pathname.startsWith(`/${path}`.replace('containers', 'container')) ? 'page' : null }, [ title ])));
	await draw(location.pathname.split('/')[4]);
}

let isLeft = false; // what is still fetched then fails
addEventListener('beforeunload', () => isLeft = true);
if (IN_APP)
	await drawApp().catch(error => isLeft || Promise.reject(error));
window.ready = true;
