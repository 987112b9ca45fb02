// SPDX-License-Identifier: GPL-2.0-or-later
// Logs of containers: live, searched here or by the agent in the whole log, of a range of time, stopped and continued; of
// several at once in the order of their times.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.live as live';
'require ucidockd.logbuffer as logbuffer';

const LIMIT = 2000;
const DRAW_MS = 150;
const RANGE = 'range';
const COLOURS = [ 'ucidockd-c0', 'ucidockd-c1', 'ucidockd-c2', 'ucidockd-c3', 'ucidockd-c4' ];

// a field of this browser's time, as seconds since 1970; '' while it is empty
function seconds(field) {
	return field.value && String(new Date(field.value).getTime() / 1000);
}

// what a small screen shows on demand only, to be put into a bar
function onDemand(...content) {
	const place = D.el('span', { 'class': 'ucidockd-rest' }, content);
	const button = D.el('button', { 'type': 'button', 'class': 'btn cbi-button ucidockd-narrow', 'aria-expanded': 'false', 'click': () => button.setAttribute('aria-expanded', String(place.classList.toggle('ucidockd-open'))) }, _('More'));

	return [ button, place ];
}

const LogView = baseclass.extend({
	// `container`: an id or a name, or several as [{id, name}, ...]. `download(options)` saves
	// their whole log of the chosen time, or all its lines that match the search, as a file.
	__init__(container, download) {
		const all = Array.isArray(container) ? container : [ { id: container, name: container } ];

		this.sources = all.map(({ id, name }, index) => ({ id, name, colour: COLOURS[index % COLOURS.length], buffer: logbuffer.make(LIMIT) }));
		this.download = download;
		this.cleared = '';
		this.lines = D.el('pre', { 'class': 'ucidockd-log ucidockd-wrap', 'role': 'region', 'tabindex': 0, 'aria-label': _('Container log'), 'data-empty': _('Loading…') });
		this.state = D.spoken('small', {});
		this.term = D.search(_('Search'), () => this.draw());
		this.term.addEventListener('change', () => this.whole.checked && this.again());
		this.whole = D.el('input', { 'type': 'checkbox', 'change': () => this.again() });
		this.follow = D.el('button', { 'class': 'btn cbi-button', 'click': () => this.toggle() });
		this.since = D.select(_('Since'), [ [ '', _('from the start') ], [ '300', _('last 5 minutes') ], [ '3600', _('last hour') ], [ '86400', _('last day') ], [ RANGE, _('a time range…') ] ], () => this.again());
		this.from = D.el('input', { 'type': 'datetime-local', 'aria-label': _('From'), 'change': () => this.again() });
		this.until = D.el('input', { 'type': 'datetime-local', 'aria-label': _('To'), 'change': () => this.again() });
		this.range = D.el('span', { 'style': 'display:none' }, this.from, ' – ', this.until);
		this.tail = D.select(_('Lines'), [ [ '500', _('last 500 lines') ], [ '100', _('last 100 lines') ], [ '2000', _('last 2000 lines') ] ], () => this.again());
		this.stamps = D.el('input', { 'type': 'checkbox', 'change': () => this.draw() });
		this.wrap = D.el('input', { 'type': 'checkbox', 'checked': '', 'change': () => this.lines.classList.toggle('ucidockd-wrap', this.wrap.checked) });
	},

	// `more`: what else is beside its buttons
	render(more) {
		return D.el('div', {},
			D.bar(this.term, this.follow, D.always('neutral', _('Download'), () => this.download(this.saved())),
				onDemand(D.labelled(_('Search the whole log'), this.whole), this.since, this.range, this.tail, D.labelled(_('Time'), this.stamps), D.labelled(_('Wrap lines'), this.wrap),
					D.el('button', { 'class': 'btn cbi-button', 'click': () => this.clear() }, _('Clear view')), more)),
			this.lines, this.state);
	},

	start() {
		for (const source of this.sources)
			source.stream ??= this.read(source);

		this.running = true;
		D.fill(this.follow, _('Pause'));
	},

	stop() {
		this.sources.forEach(source => {
			source.stream?.stop();
			source.stream = null;
		});
		this.running = false;
		D.fill(this.follow, _('Follow log'));
	},

	toggle() {
		this.running ? this.stop() : this.start();
	},

	// the container of the first log runs again: its log goes on after the last line
	goOn() {
		const [ source ] = this.sources;

		if (!this.running || !source.isOver || this.asked().until)
			return;

		source.stream.stop();
		source.stream = this.read(source);
	},

	read(source) {
		return live.follow('logs', () => this.args(source), item => this.take(source, item));
	},

	// with other lines than so far
	again() {
		this.range.style.display = this.since.value === RANGE ? '' : 'none';
		this.stop();
		this.sources.forEach(source => {
			source.buffer = logbuffer.make(LIMIT);
		});
		this.start();
		this.draw();
	},

	// what is there now goes out of sight; what comes is shown
	clear() {
		this.cleared = this.sources.map(source => source.buffer.last).sort().pop() ?? '';
		this.draw();
	},

	// what was chosen, as the agent takes it
	asked() {
		const isRange = this.since.value === RANGE, term = this.whole.checked ? this.term.value.trim() : '';
		const since = isRange ? seconds(this.from) : this.since.value && String(Math.floor(Date.now() / 1000) - Number(this.since.value));
		const until = isRange ? seconds(this.until) : '';

		return { ...(since && { since }), ...(until && { until }), ...(term && { grep: term }) };
	},

	// what is searched for here is saved, too; several are saved as one file, merged by time
	saved() {
		const term = this.term.value.trim();

		return { ...this.asked(), ...(term && { grep: term }), ...(this.sources.length > 1 && { containers: this.sources.map(source => source.name) }) };
	},

	// after a break it goes on at the last line's own time: no other clock can be trusted
	args({ id, buffer }) {
		const asked = this.asked();

		buffer.resume();

		return { container: id, timestamps: true, tail: asked.grep ? 'all' : this.tail.value, ...asked, ...(buffer.last && { tail: 'all', since: buffer.last }), follow: !asked.until };
	},

	take(source, item) {
		source.isOver = item.name === 'end';

		if (item.text !== undefined) {
			source.buffer.push(item.name, item.text);
		} else if (item.name === 'end' || item.name === 'error') {
			source.buffer.flush();
			source.ended = item.name === 'end' ? _('The log has ended.') : D.wordsOf(item.json);
		} else {
			source.ended = '';
		}

		this.timer ??= window.setTimeout(() => this.draw(), DRAW_MS);
	},

	found() {
		const found = this.sources.flatMap(source => source.buffer.search(this.term.value).map(line => ({ ...line, of: source })))
			.filter(line => !this.cleared || line.at > this.cleared);

		return this.sources.length > 1 ? found.sort((one, other) => one.at < other.at ? -1 : one.at > other.at ? 1 : 0).slice(-LIMIT) : found;
	},

	nodeOf({ at, text, source, of }) {
		const stamp = this.stamps.checked && at ? '%s  '.format(new Date(Number(at) * 1000).toLocaleString()) : '';
		const name = this.sources.length > 1 ? D.el('span', { 'class': of.colour }, of.name, ' | ') : null;
		const words = '%s%s\n'.format(stamp, text);

		return [ name, source === 'stderr' ? D.el('span', { 'class': 'ucidockd-wrong' }, words) : words ];
	},

	draw() {
		const atEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 40;
		const found = this.found(), dropped = this.sources.reduce((sum, source) => sum + source.buffer.dropped, 0);

		this.timer = null;
		this.lines.dataset.empty = this.term.value || this.whole.checked ? _('No line matches.') : _('No output in this time.');
		D.fill(this.lines, found.map(line => this.nodeOf(line)));
		D.fill(this.state, N_(found.length, '%d line', '%d lines').format(found.length), dropped ? ' ' + _('(%d older ones are not shown)').format(dropped) : '',
			' ', [ ...new Set(this.sources.map(source => source.ended).filter(Boolean)) ].join(' '));

		if (atEnd)
			this.lines.scrollTop = this.lines.scrollHeight;
	}
});

return baseclass.extend({ make: (container, download) => new LogView(container, download) });
