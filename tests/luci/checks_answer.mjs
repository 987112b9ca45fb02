// SPDX-License-Identifier: GPL-2.0-or-later
// Reads [[type, option, text], ...] on stdin and prints what the forms' checks say, as JSON.
import { readFileSync } from 'node:fs';

import { load } from './load.mjs';

const { byOption } = load('ucidockd.checks');
const asked = JSON.parse(readFileSync(0, 'utf8'));
console.log(JSON.stringify(asked.map(([ type, option, text ]) => byOption[type][option](text))));
