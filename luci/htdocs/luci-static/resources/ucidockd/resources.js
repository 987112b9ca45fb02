// SPDX-License-Identifier: GPL-2.0-or-later
// Limits and restart policy of a container that is there. Of one that no section declares they can be changed here, on the
// engine; of others the section says them. `valuesOf` and `bodyOf` are pure.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.checks as checks';
'require ucidockd.dom as D';
'require ucidockd.schemas as schemas';

const UNITS = [ [ 'g', 1024 ** 3 ], [ 'm', 1024 ** 2 ], [ 'k', 1024 ] ];

// as UCI has sizes
function sizeText(bytes) {
	const [ unit, factor ] = UNITS.find(([ , size ]) => bytes % size === 0) ?? [ '', 1 ];

	return bytes > 0 ? '%d%s'.format(bytes / factor, unit) : bytes < 0 ? '-1' : '';
}

function sizeOf(text) {
	return text === '-1' ? -1 : Number(checks.bytesOf(text));
}

function policyText(policy) {
	return policy?.MaximumRetryCount ? '%s:%d'.format(policy.Name, policy.MaximumRetryCount) : policy?.Name || 'no';
}

function policyOf(text) {
	const [ Name, count ] = text.split(':');

	return { Name, MaximumRetryCount: Number(count ?? 0) };
}

const number = value => value ? String(value) : '';

// option of a section -> field of the engine, how it reads there, how it is written
const FIELDS = {
	memory: [ 'Memory', sizeText, sizeOf ], memory_swap: [ 'MemorySwap', sizeText, sizeOf ], memory_reservation: [ 'MemoryReservation', sizeText, sizeOf ],
	cpus: [ 'NanoCpus', nano => nano ? String(nano / 1e9) : '', text => Math.round(+text * 1e9) ], cpu_shares: [ 'CpuShares', number, Number ],
	cpuset: [ 'CpusetCpus', text => text ?? '', text => text ], pids_limit: [ 'PidsLimit', number, Number ],
	blkio_weight: [ 'BlkioWeight', number, Number ], restart: [ 'RestartPolicy', policyText, policyOf ]
};

return baseclass.extend({
	// option -> text, of an inspected container
	valuesOf(found) {
		return Object.fromEntries(Object.entries(FIELDS).map(([ option, [ field, read ] ]) => [ option, read(found.HostConfig[field]) ]));
	},

	// what POST /containers/{id}/update takes for what changed. Throws for a limit that is taken away: the engine does not do that.
	bodyOf(values, before) {
		const changed = Object.entries(values).filter(([ option, text ]) => text !== before[option]);

		for (const [ option, text ] of changed)
			if (text === '')
				throw new Error(_('%s: Docker cannot remove a limit from an existing container, only change it.').format(option));

		return Object.fromEntries(changed.map(([ option, text ]) => [ FIELDS[option][0], FIELDS[option][2](text) ]));
	},

	async render(id, owner) {
		const [ found, schema ] = await Promise.all([ calls.container.inspect(id), schemas.load('container') ]);
		const before = this.valuesOf(found), place = D.el('div', {});
		const isFixed = owner !== undefined || !L.hasViewPermission();
		const rows = Object.keys(FIELDS).map(option => this.row(option, schema.properties[option], before[option], isFixed));
		const save = async () => {
			const values = Object.fromEntries(rows.map(row => [ row.option, row.value() ]));

			if (rows.some(row => row.wrong()))
				throw new Error(_('Correct the marked fields first.'));

			const { Warnings: warnings } = await calls.container.update(id, this.bodyOf(values, before)) ?? {};

			D.fill(place, await this.render(id, owner), (warnings ?? []).map(text => D.el('p', { 'class': 'alert-message warning' }, text)));
		};

		return D.fill(place,
			D.facts(rows.map(row => [ row.title, row.node ])),
			owner ? D.el('p', {}, _('Change these under Settings.'))
				: D.el('p', {}, D.button('apply', _('Change now'), save), ' ', L.hasViewPermission() ? _('This lasts until the container is created again. To keep it, adopt the container.') : ''));
	},

	row(option, property, text, isFixed) {
		if (isFixed)
			return { title: _(property.title), node: text || '-' };

		const input = D.el('input', { 'type': 'text', 'value': text, 'placeholder': schemas.placeholderOf(property) }), note = D.el('small', { 'class': 'ucidockd-wrong' });
		const value = () => input.value.trim();
		const wrong = () => value() !== text && value() !== '' ? schemas.check('container', option, property, value()) : '';

		input.addEventListener('input', () => D.fill(note, wrong()));

		return { option, title: _(property.title), node: [ input, ' ', note ], value, wrong };
	}
});
