// SPDX-License-Identifier: GPL-2.0-or-later
// A container's log: live, searched, stopped and gone on with.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.live as live';
'require ucidockd.logbuffer as logbuffer';

const LIMIT = 2000;
const DRAW_MS = 150;

const LogView = baseclass.extend({
	__init__(container) {
		this.container = container;
		this.buffer = logbuffer.make(LIMIT);
		this.lines = D.el('pre', { 'style': 'height:50vh;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere', 'class': 'ucidockd-log' });
		this.state = D.el('small', {});
		this.term = D.el('input', { 'type': 'text', 'placeholder': _('Search'), 'input': () => this.draw() });
		this.follow = D.el('button', { 'class': 'btn cbi-button', 'click': () => this.toggle() });
	},

	render() {
		return D.el('div', {}, D.el('p', {}, this.term, ' ', this.follow, ' ', this.state), this.lines);
	},

	start() {
		this.stream ??= live.follow('logs', () => this.args(), item => this.take(item));
		D.fill(this.follow, _('Pause'));
	},

	toggle() {
		if (!this.stream)
			return this.start();

		this.stream.stop();
		this.stream = null;
		D.fill(this.follow, _('Follow'));
	},

	// after a break it goes on at the last line's own time: no other clock can be trusted
	args() {
		this.buffer.resume();

		return { container: this.container, timestamps: true, ...(this.buffer.last ? { since: this.buffer.last } : { tail: '500' }) };
	},

	take(item) {
		if (item.text !== undefined) {
			this.buffer.push(item.name, item.text);
		} else if (item.name === 'end' || item.name === 'error') {
			this.buffer.flush();
			this.ended = item.name === 'end' ? _('The log has ended.') : D.wordsOf(item.json);
		} else {
			this.ended = '';
		}

		this.timer ??= window.setTimeout(() => this.draw(), DRAW_MS);
	},

	draw() {
		const atEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 40;
		const found = this.buffer.search(this.term.value);

		this.timer = null;
		D.fill(this.lines, found.map(line => line.source === 'stderr' ? D.el('span', { 'style': 'color:#c44' }, line.text + '\n') : line.text + '\n'));
		D.fill(this.state, _('%d lines').format(found.length), this.buffer.dropped ? ' ' + _('(%d older ones dropped)').format(this.buffer.dropped) : '', ' ', this.ended ?? '');

		if (atEnd)
			this.lines.scrollTop = this.lines.scrollHeight;
	}
});

return baseclass.extend({ make: container => new LogView(container) });
