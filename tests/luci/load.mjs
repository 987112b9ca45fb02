// SPDX-License-Identifier: GPL-2.0-or-later
// LuCI's modules in node: pure ones, and others with what they need given by the test.
import { readFileSync } from 'node:fs';

import { baseclass, instanceOf } from './standin.mjs';

const RESOURCES = new URL('../../luci/htdocs/luci-static/resources/', import.meta.url);

/** The instance that `'require NAME'` gives; `given` has what the test provides, by name. */
export function load(name, given = {}) {
	if (name === 'baseclass')
		return baseclass;
	if (name in given)
		return given[name];
	const source = readFileSync(new URL(`${name.replaceAll('.', '/')}.js`, RESOURCES), 'utf8');
	return instanceOf(source, path => load(path, given));
}
