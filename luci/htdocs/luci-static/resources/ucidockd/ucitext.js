// SPDX-License-Identifier: GPL-2.0-or-later
// Sections of a form as the text of a UCI file, for the agent to check before anything is saved (`ucidockd validate`). Pure.
'use strict';
'require baseclass';

// single quotes end, a quoted quote, single quotes begin (libuci, file.c)
function quoted(value) {
	return "'%s'".format(String(value).replaceAll("'", "'\\''"));
}

function lines(section) {
	const name = section['.anonymous'] ? '' : ' %s'.format(quoted(section['.name']));
	const found = [ 'config %s%s'.format(section['.type'], name) ];

	for (const [ option, value ] of Object.entries(section)) {
		if (option.startsWith('.') || value === null || value === undefined)
			continue;

		if (Array.isArray(value))
			found.push(...value.map(item => '\tlist %s %s'.format(option, quoted(item))));
		else
			found.push('\toption %s %s'.format(option, quoted(value)));
	}

	return found;
}

return baseclass.extend({
	// `sections` as LuCI's uci.sections() gives them
	format(sections) {
		return sections.map(section => lines(section).join('\n') + '\n').join('\n');
	}
});
