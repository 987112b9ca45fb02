// SPDX-License-Identifier: GPL-2.0-or-later
// In place of LuCI: its loader, elements and calls, as much as the modules use. `show` puts one of them on the page.
import { baseclass, instanceOf, needsOf } from '../standin.mjs';

const SESSION = new URLSearchParams(location.search).get('session');
const RESOURCES = '/luci-static/resources';

globalThis.L = {
	env: { token: 'none' },
	resource: path => `${RESOURCES}/${path}`,
	url: (...words) => `/${words.join('/')}`,
	hasViewPermission: () => true,
	resolveDefault: (promise, value) => Promise.resolve(promise).catch(() => value)
};

globalThis.E = (name, attributes, children) => {
	const node = document.createElement(name);
	for (const [ key, value ] of Object.entries(attributes))
		if (typeof value === 'function')
			node.addEventListener(key, value);
		else if (value !== null && value !== undefined)
			node.setAttribute(key, value);
	node.append(...children);
	return node;
};

async function call(object, method, params) {
	const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'call', params: [ SESSION, object, method, params ] });
	const { result, error } = await (await fetch('/ubus', { method: 'POST', body })).json();
	if (error)
		throw Object.assign(new Error('Login session is expired'), { name: 'SessionError' });
	if (result[0] !== 0)
		throw new Error(`${object} ${method}: ubus code ${result[0]}`);
	return result[1];
}

const GIVEN = {
	baseclass,
	ui: {
		createHandlerFn: (self, action) => () => action.call(self),
		addNotification: (_title, node) => document.getElementById('notes').append(node)
	},
	rpc: {
		getSessionID: () => SESSION,
		getBaseURL: () => '/ubus',
		declare: ({ object, method, params }) => (...values) => call(object, method, Array.isArray(params)
			? Object.fromEntries(params.map((name, index) => [ name, values[index] ])) : values[0] ?? {})
	}
};

const sources = new Map();

async function fetchSources(name) {
	if (name in GIVEN || sources.has(name))
		return;
	const source = await (await fetch(`${RESOURCES}/${name.replaceAll('.', '/')}.js`)).text();
	sources.set(name, source);
	await Promise.all(needsOf(source).map(([ path ]) => fetchSources(path)));
}

function instance(name) {
	return GIVEN[name] ??= instanceOf(sources.get(name), instance);
}

/** Puts what `make` of a module gives on the page; it is `window.shown`. */
window.show = async (name, options, begin = 'start') => {
	await fetchSources(name);
	const shown = window.shown = instance(name).make(options ?? (() => {}));
	document.getElementById('view').replaceChildren(shown.render?.() ?? shown.node);
	await shown[begin]();
};
window.ready = true;
