// SPDX-License-Identifier: GPL-2.0-or-later
// The networks of a container that is there; of one that no section declares they can be changed, on the engine.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';

const SPECIAL = [ 'host', 'none' ];

return baseclass.extend({
	// `again` shows it anew
	async render(id, owner, again) {
		const [ found, all ] = await Promise.all([ calls.container.inspect(id), calls.network.list() ]);
		const joined = Object.entries(found.NetworkSettings?.Networks ?? {}), names = new Set(joined.map(([ name ]) => name));
		const free = all.filter(one => !names.has(one.Name) && !SPECIAL.includes(one.Name)).map(one => one.Name).sort();
		const isFixed = owner !== undefined || names.has('host');
		const choice = D.select(_('Network'), free.map(name => [ name, name ]));
		const change = (method, network) => calls.network[method](network, { Container: id }).then(again);

		return [
			D.table([ _('Network'), _('IPv4'), _('IPv6'), _('MAC'), '' ], joined.map(([ name, one ]) => [
				name, one.IPAddress || '-', one.GlobalIPv6Address || '-', one.MacAddress || '-',
				isFixed ? '' : D.button('neutral', _('Disconnect'), () => change('disconnect', name))
			]), _('It is not connected to a network.')),
			!isFixed && free.length && L.hasViewPermission() ? D.bar(choice, D.button('apply', _('Connect'), () => change('connect', choice.value))) : ''
		];
	}
});
