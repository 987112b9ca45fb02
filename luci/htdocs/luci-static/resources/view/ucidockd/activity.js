// SPDX-License-Identifier: GPL-2.0-or-later
// Docker > Events: what happens on the engine, as it happens.
'use strict';
'require view';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.live as live';

const LIMIT = 500;
const SPANS = () => [ [ 3600, _('the last hour') ], [ 86400, _('the last day') ], [ 7 * 86400, _('the last week') ] ];

return view.extend({
	load() {
		return null;
	},

	row(event) {
		const attributes = Object.entries(event.Actor?.Attributes ?? {}).filter(([ key ]) => key !== 'name');

		return [
			format.time((event.timeNano ?? 0) / 1e9 || event.time), event.Type, event.Action,
			event.Actor?.Attributes?.name ?? format.shortId(event.Actor?.ID),
			D.el('small', { 'style': 'overflow-wrap:anywhere' }, attributes.map(([ key, value ]) => '%s=%s'.format(key, value)).join(' '))
		];
	},

	draw() {
		const term = this.filter.value.toLowerCase(), type = this.type.value;
		const shown = this.events.filter(event => (!type || event.Type === type) && JSON.stringify(event).toLowerCase().includes(term));

		D.fill(this.list, D.table([ _('Time'), _('Type'), _('Action'), _('Name'), _('Details') ], shown.map(event => this.row(event)), _('no event so far: whatever happens on the engine appears here')));
	},

	take(item) {
		if (item.name === 'begin')
			this.events = [];

		if (item.name === 'event') {
			this.events.unshift(item.json);
			this.events.length = Math.min(this.events.length, LIMIT);
		}

		this.timer ??= window.setTimeout(() => {
			this.timer = null;
			this.draw();
		}, 200);
	},

	// from when on; the engine keeps the last 256 events
	follow() {
		this.stream?.stop();
		this.events = [];
		this.draw();
		this.stream = live.follow('events', () => ({ since: String(Math.floor(Date.now() / 1000) - Number(this.span.value)) }), item => this.take(item));
	},

	render() {
		const types = [ '', 'container', 'image', 'network', 'volume', 'daemon', 'plugin' ];

		this.events = [];
		this.list = D.el('div', {});
		this.filter = D.el('input', { 'type': 'text', 'placeholder': _('Filter'), 'input': () => this.draw() });
		this.type = D.el('select', { 'change': () => this.draw() }, types.map(type => D.el('option', { 'value': type }, type || _('all types'))));
		this.span = D.el('select', { 'change': () => this.follow() }, SPANS().map(([ seconds, words ]) => D.el('option', { 'value': seconds }, words)));
		this.follow();

		return D.el('div', {}, D.connection(live), D.el('h2', {}, _('Events')), D.el('p', {}, this.span, ' ', this.type, ' ', this.filter), this.list);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
