// SPDX-License-Identifier: GPL-2.0-or-later
// Reads [[type, option, text], ...] on stdin and prints what the forms' checks say, as JSON; `words` splits the text instead.
import { readFileSync } from 'node:fs';

import { load } from './load.mjs';

const { byOption } = load('ucidockd.checks');
const words = load('ucidockd.words');
const asked = JSON.parse(readFileSync(0, 'utf8'));
console.log(JSON.stringify(asked.map(([ type, option, text ]) => option === 'words' ? words.split(text) : byOption[type][option](text))));
