// SPDX-License-Identifier: GPL-2.0-or-later
// Loads a LuCI module the way LuCI does: its file is the body of a function, its 'require' strings are the parameters.
import { readFileSync } from 'node:fs';

const RESOURCES = new URL('../../luci/htdocs/luci-static/resources/', import.meta.url);
const REQUIRE = /^'require ([^' ]+)(?: as ([A-Za-z_$][\w$]*))?';$/gm;

globalThis._ = text => text;
globalThis.N_ = (count, one, many) => (count === 1 ? one : many);

// as much of LuCI's own (cbi.js) as the modules use
String.prototype.format = function(...values) {
	return this.replace(/%([sd%])/g, (_all, kind) => (kind === '%' ? '%' : kind === 'd' ? Math.floor(+values.shift()) : String(values.shift())));
};

const baseclass = {
	extend(members) {
		const Class = function(...args) {
			this.__init__?.(...args);
		};
		Class.prototype = Object.create(Object.prototype, Object.getOwnPropertyDescriptors(members));
		return Class;
	}
};

/** The instance that `'require NAME'` gives; `given` has what the test provides, by name. */
export function load(name, given = {}) {
	if (name === 'baseclass')
		return baseclass;
	if (name in given)
		return given[name];
	const source = readFileSync(new URL(`${name.replaceAll('.', '/')}.js`, RESOURCES), 'utf8');
	const needs = [ ...source.matchAll(REQUIRE) ].map(([ , path, alias ]) => [ alias ?? path.replaceAll('.', '_'), load(path, given) ]);
	const Class = new Function(...needs.map(([ parameter ]) => parameter), source)(...needs.map(([ , value ]) => value));
	return new Class();
}
