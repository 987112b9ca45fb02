// SPDX-License-Identifier: GPL-2.0-or-later
// The sections `stack`: what the containers of a stack share. Loaded when it is opened.
'use strict';
'require baseclass';
'require ucidockd.editor as editor';
'require ucidockd.schemas as schemas';
'require ucidockd.sections as sections';

const CONFIG = 'containers', MAIN = [ 'env', 'env_file', 'zone', 'subnet' ];

return baseclass.extend({
	// a node with the forms; `mistakes`: texts of the status
	async render(mistakes) {
		const [ readable, schema ] = await Promise.all([ editor.load(CONFIG), schemas.load('stack') ]);

		return readable ? sections.page({
			config: CONFIG, type: 'stack', schema, mistakes, words: _('Containers join a stack by the option "Stack" in their settings. Those that name no network are in one of the stack\'s own, where they reach each other by name.'),
			label: _('Add stack'), main: MAIN
		}) : editor.refused();
	}
});
