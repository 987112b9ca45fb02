// SPDX-License-Identifier: GPL-2.0-or-later
// Tabs of a container's page that are fetched when they are shown: its load, and its settings.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.graph as graph';
'require ucidockd.networksof as networksof';

// a place whose content is fetched, again on request; `fetch(again)` gives it
function fetched(fetch, ...inputs) {
	const place = D.el('div', {});
	const draw = async () => D.fill(place, await fetch(draw).catch(error => D.el('p', { 'class': 'alert-message notice' }, D.coded(D.wordsOf(error)))));

	draw();

	return D.el('div', {}, D.bar(inputs, D.always('neutral', _('Refresh'), draw)), place);
}

return baseclass.extend({
	fetched,

	// `graphs`: what `graph.make` gave
	load(graphs, id, owner) {
		const flags = D.el('input', { 'type': 'text', 'size': 30, 'placeholder': _('columns, such as -o pid,user,args'), 'aria-label': _('Columns of ps') });

		return D.el('div', {}, graphs.render(), owner && [ D.el('h3', {}, _('The last 24 hours')), fetched(() => graph.day(owner.section)) ], D.el('h3', {}, _('Processes')), fetched(async () => {
			const given = flags.value.trim(), { Titles: titles, Processes: found } = await calls.together().container.top(id, given ? { ps_args: given } : undefined);

			return D.table(titles, found ?? []);
		}, flags));
	},

	// the form of a section, or what can be changed of a container that is not managed; `asked`: what `formdata.ask` gave
	settings(owner, id, asked) {
		if (owner)
			return D.later(async () => {
				const form = await (await L.require('ucidockd.form')).edit(owner.section, asked, owner.conditions.filter(one => one.type === 'Accepted').map(one => one.message));

				// who came here to edit may type at once
				window.setTimeout(() => document.activeElement === document.body && form.querySelector('input')?.focus({ preventScroll: true }));

				return form;
			});

		return D.el('div', {},
			D.el('p', {}, _('This container is not managed. Changes made here are lost when it is created again; adopt it to keep its settings in the router\'s configuration.')),
			D.el('h3', {}, _('Networks')), fetched(again => networksof.render(id, owner, again)),
			D.el('h3', {}, _('Limits')), fetched(async () => (await L.require('ucidockd.resources')).render(id, owner)));
	}
});
