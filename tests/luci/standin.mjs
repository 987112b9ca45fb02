// SPDX-License-Identifier: GPL-2.0-or-later
// What LuCI's loader does, in small, for node and for a browser: a module's file is the body of a function, its 'require'
// strings are the parameters. And as much of LuCI's own texts (cbi.js) as the modules use.
const REQUIRE = /^'require ([^' ]+)(?: as ([A-Za-z_$][\w$]*))?';$/gm;

globalThis._ = text => text;
globalThis.N_ = (count, one, many) => (count === 1 ? one : many);

String.prototype.format = function(...values) {
	return this.replace(/%([sd%])/g, (_all, kind) => (kind === '%' ? '%' : kind === 'd' ? Math.floor(+values.shift()) : String(values.shift())));
};

export const baseclass = {
	extend(members) {
		const Class = function(...args) {
			this.__init__?.(...args);
		};
		// values, as LuCI copies them: a getter would be asked here
		Class.prototype = { ...members };
		return Class;
	}
};

/** [[path, parameter], ...] of the 'require' lines. */
export function needsOf(source) {
	return [ ...source.matchAll(REQUIRE) ].map(([ , path, alias ]) => [ path, alias ?? path.replaceAll('.', '_') ]);
}

/** What `source` makes of its needs: LuCI gives an instance of the class that it returns. */
export function instanceOf(source, valueOf) {
	const needs = needsOf(source);
	const Class = new Function(...needs.map(([ , parameter ]) => parameter), source)(...needs.map(([ path ]) => valueOf(path)));
	return new Class();
}
