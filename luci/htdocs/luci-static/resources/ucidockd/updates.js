// SPDX-License-Identifier: GPL-2.0-or-later
// Newer images: what the last check found, which the status has of each container (`update`), and a check now.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';

function isNewer(resource) {
	return resource?.update?.state === 'update';
}

function since({ first_seen: first, size }, now) {
	return [ first && _('known for %s').format(format.age(first, now)), size && format.bytes(size) ].filter(Boolean).join(', ');
}

return baseclass.extend({
	isNewer,

	// in words, of one container; '' where no image was checked
	words({ update }, now) {
		if (!update)
			return '';

		const { state, why, checked_at: at } = update;

		switch (state) {
		case 'update':
			return [ _('A newer image is available'), since(update, now) ].filter(Boolean).join(', ');
		case 'up-to-date':
			return at ? _('Up to date, checked %s ago').format(format.age(at, now)) : _('Up to date');
		default:
			return why ? _('Not known: %s').format(why) : _('Not known');
		}
	},

	// those that have one, each a link; '' for none
	list(resources, now) {
		const found = resources.filter(isNewer);

		return found.length ? D.el('p', {}, D.badge('waiting', N_(found.length, '%d update', '%d updates').format(found.length)), ' ',
			found.map((one, index) => [ index ? ', ' : '', D.page([ 'container', one.section ], one.name), ' ', D.el('small', { 'class': 'ucidockd-quiet' }, since(one.update, now)) ])) : '';
	},

	// asks the registries now
	button: () => D.button('neutral', _('Check for updates'), async () => {
		const { under_way: goesOn, containers } = await calls.agent.updates_check();
		const found = (containers ?? []).filter(one => one.state === 'update').length, failed = new Map();

		for (const { name, state, why } of containers ?? [])
			if (state === 'failed' || state === 'rate-limited')
				failed.set(why, [ ...failed.get(why) ?? [], name ]);

		D.notify('info', goesOn ? _('The registries are still being asked. What they say is shown here.') : N_(found, '%d update is available.', '%d updates are available.').format(found));
		failed.forEach((names, why) => D.notify('warning', '%s: %s'.format(names.join(', '), why)));
	})
});
