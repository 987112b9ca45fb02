// SPDX-License-Identifier: GPL-2.0-or-later
// LuCI's modules are bodies of functions with their needs as parameters; the names below are those that LuCI gives them.
import { readFileSync, readdirSync } from 'node:fs';

import js from '@eslint/js';
import json from '@eslint/json';
import globals from 'globals';

const REQUIRE = /^'require ([^' ]+)(?: as ([A-Za-z_$][\w$]*))?';$/gm;

function namesIn(text) {
	return [ ...text.matchAll(REQUIRE) ].map(([ , path, alias ]) => alias ?? path.replaceAll('.', '_'));
}

// each module may use what its own 'require' lines name, and nothing else
const required = {
	meta: { schema: [] },
	create(context) {
		const names = new Set(namesIn(context.sourceCode.text));
		return {
			'Program:exit'() {
				for (const name of MODULES) {
					const [ first ] = context.sourceCode.scopeManager.globalScope.set.get(name)?.references ?? [];
					if (first && !names.has(name))
						context.report({ node: first.identifier, message: `'${name}' is used without a 'require' line` });
					if (!first && names.has(name))
						context.report({ loc: { line: 1, column: 0 }, message: `'${name}' is required and not used` });
				}
			}
		};
	}
};

// every name that some 'require' line gives a module
const FOLDER = new URL('luci/htdocs/luci-static/resources/', import.meta.url);
const MODULES = new Set([ 'ucidockd', 'view/ucidockd' ].flatMap(folder => readdirSync(new URL(folder, FOLDER)).filter(name => name.endsWith('.js'))
	.flatMap(name => namesIn(readFileSync(new URL(`${folder}/${name}`, FOLDER), 'utf8')))));

// parts of LuCI that take a string as HTML (ui.js, luci.js `dom`)
const SINKS = [
	...[ 'showModal', 'addNotification', 'addTimeLimitedNotification', 'showIndicator' ].map(property => ({ object: 'ui', property, message: 'a string becomes HTML: use D.dialogue() or D.notify()' })),
	...[ 'dom', 'itemlist' ].map(property => ({ object: 'L', property, message: 'a string becomes HTML: use ucidockd.dom' })),
	...[ 'createContextualFragment', 'setHTMLUnsafe', 'parseFromString', 'srcdoc' ].map(property => ({ property, message: 'outside data is text: use ucidockd.dom' })),
	...[ 'rawhtml', 'sectiontitle' ].map(property => ({ property, message: 'a string becomes HTML' }))
];
const NO_MARKUP = [
	...[ 'innerHTML', 'outerHTML', 'insertAdjacentHTML' ].map(property => ({ property, message: 'outside data is text: use ucidockd.dom' })),
	...[ 'write', 'writeln' ].map(property => ({ object: 'document', property, message: 'outside data is text: use ucidockd.dom' }))
];

export default [
	{ ignores: [ 'luci/htdocs/luci-static/resources/ucidockd/xterm/**', 'luci/i18n/schemas.js' ] },
	{ linterOptions: { reportUnusedDisableDirectives: 'error' } },
	{
		files: [ 'luci/**/*.js' ],
		plugins: { luci: { rules: { required } } },
		languageOptions: {
			sourceType: 'script', ecmaVersion: 2022, parserOptions: { ecmaFeatures: { globalReturn: true } },
			globals: { ...globals.browser, _: 'readonly', N_: 'readonly', L: 'readonly', E: 'readonly', ...Object.fromEntries([ ...MODULES ].map(name => [ name, 'readonly' ])) }
		},
		rules: {
			...js.configs.recommended.rules,
			'luci/required': 'error',
			'no-unused-vars': [ 'error', { args: 'after-used' } ],
			'no-var': 'error',
			'prefer-const': [ 'error', { destructuring: 'all' } ],
			'eqeqeq': [ 'error', 'always', { null: 'ignore' } ],
			'no-control-regex': 'off',
			'no-restricted-properties': [ 'error', ...NO_MARKUP ],
			'no-eval': 'error',
			'no-implied-eval': 'error',
			'no-script-url': 'error'
		}
	},
	{
		// dom.js is the one place that may call E() (beside frame.js, which is there before it), and LuCI's dialogues and notices
		files: [ 'luci/**/*.js' ],
		ignores: [ '**/dom.js', 'luci/frame.js' ],
		rules: {
			'no-restricted-globals': [ 'error', { name: 'E', message: 'a string in E() becomes HTML: use D.el()' } ],
			'no-restricted-properties': [ 'error', ...NO_MARKUP, ...SINKS ]
		}
	},
	{
		files: [ 'tests/luci/**/*.mjs', 'eslint.config.mjs' ],
		languageOptions: { ecmaVersion: 2024, globals: { ...globals.node, ...globals.browser, _: 'readonly', L: 'readonly' } },
		rules: { ...js.configs.recommended.rules, 'no-var': 'error', 'prefer-const': 'error' }
	},
	{ files: [ 'luci/**/*.json' ], plugins: { json }, language: 'json/json', rules: { ...json.configs.recommended.rules } }
];
