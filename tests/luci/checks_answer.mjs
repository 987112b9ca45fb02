// SPDX-License-Identifier: GPL-2.0-or-later
// Reads [[type, option, text], ...] on stdin and prints what the forms' checks say, as JSON; for the option `words` it splits the text.
import { readFileSync } from 'node:fs';

import { load } from './load.mjs';

const schemas = load('ucidockd.schemas');
const words = load('ucidockd.words');
const known = {};

function propertyOf(type, option) {
	known[type] ??= JSON.parse(readFileSync(new URL(`../../schemas/${type}.schema.json`, import.meta.url), 'utf8')).properties;
	return known[type][option];
}

const asked = JSON.parse(readFileSync(0, 'utf8'));
console.log(JSON.stringify(asked.map(([ type, option, text ]) => option === 'words' ? words.split(text) : schemas.check(type, option, propertyOf(type, option), text))));
