// SPDX-License-Identifier: GPL-2.0-or-later
// The buttons of containers: those that make sense now, what they ask before they act, and what is behind them. What an action
// does, `actions` decides; rows are those of `rows`.
'use strict';
'require baseclass';
'require ucidockd.actions as actions';
'require ucidockd.adopt as adopt';
'require ucidockd.dom as D';
'require ucidockd.containerlist as rows';

function labelOf(action) {
	return {
		start: _('Start'), stop: _('Stop'), restart: _('Restart'), pause: _('Pause'), unpause: _('Resume'), kill: _('Kill'), remove: _('Remove')
	}[action];
}

function decide(action, row, given) {
	return actions.decide(action, row.container ?? { Id: row.owner?.object_id }, row.owner, given);
}

return baseclass.extend({
	labelOf,

	// asks, and does it to all of them; what UCI says is applied by LuCI, which shows what becomes of it
	ask(action, chosen, done) {
		const decisions = chosen.map(row => decide(action, row));

		D.ask(chosen.length === 1 ? '%s %s'.format(labelOf(action), chosen[0].name) : labelOf(action),
			decisions.map((decision, index) => actions.consequence(decision, chosen[index].name)), labelOf(action), async () => {
				await actions.run(decisions);
				await done(decisions);
			}, [ 'remove', 'kill', 'stop' ].includes(action) ? 'negative' : 'apply');
	},

	rename(row, done) {
		const field = D.el('input', { 'type': 'text', 'value': row.name, 'aria-label': _('New name') });

		D.ask(_('Rename %s').format(row.name), [ field, row.owner ? _('The container is renamed and keeps running.') : '' ], _('Rename'), async () => {
			const decision = decide('rename', row, { name: field.value.trim() });

			await actions.run([ decision ]);
			await done([ decision ]);
		});
	},

	button(action, row, done) {
		return D.button(action === 'start' ? 'apply' : 'neutral', labelOf(action), () => this.ask(action, [ row ], done));
	},

	page(row, tab, text) {
		return D.page([ 'container', row.path ], text, tab, 'btn cbi-button');
	},

	// to one container: at hand, and behind a menu. `isHere`: on the container's own page, which has its tabs beside
	of(row, done, isHere) {
		const [ first, ...more ] = row.container ? rows.actionsFor(row.container) : row.owner?.level === 'off' ? [ 'start' ] : [];
		const isWriter = L.hasViewPermission(), runs = row.container?.State === 'running';

		return [
			!row.owner && D.button('positive', _('Adopt'), () => adopt.show(row.container.Id, row.name, () => done([]))),
			!isHere && row.container && this.page(row, 'logs', _('Logs')),
			!isHere && isWriter && runs && this.page(row, 'console', _('Console')),
			!isHere && isWriter && runs && this.page(row, 'files', _('Files')),
			!isHere && isWriter && row.owner && this.page(row, 'settings', _('Edit', 'a container')),
			first && this.button(first, row, done),
			isHere && more.includes('restart') && this.button('restart', row, done),
			isWriter && D.menu(_('More'), [
				row.owner && D.page('add', _('Copy'), 'copy=' + row.owner.section, 'btn cbi-button'),
				more.filter(action => !isHere || action !== 'restart').map(action => this.button(action, row, done)),
				row.container && D.button('neutral', _('Rename'), () => this.rename(row, done)),
				D.button('negative', _('Remove'), () => this.ask('remove', [ row ], done))
			])
		].filter(Boolean).flatMap(node => [ node, ' ' ]);
	}
});
