// SPDX-License-Identifier: GPL-2.0-or-later
// A container's load over the last two minutes, and over the last day as far as the agent keeps it, as SVG.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.format as format';
'require ucidockd.live as live';
'require ucidockd.stats as stats';

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 480, HEIGHT = 90;
const COLOURS = [ 'ucidockd-c0', 'ucidockd-c1' ];

const GRAPHS = [
	{ title: () => _('CPU'), names: [ 'cpu' ], words: () => [ '' ], least: 1, text: value => '%s %%'.format(value.toFixed(1)) },
	{ title: () => _('Memory'), names: [ 'memory' ], words: () => [ '' ], least: 1024 * 1024, text: format.bytes },
	{ title: () => _('Network'), names: [ 'rx', 'tx' ], words: () => [ _('in'), _('out') ], least: 1024, text: value => format.bytes(value) + '/s' },
	{ title: () => _('Disk'), names: [ 'read', 'write' ], words: () => [ _('read'), _('written') ], least: 1024, text: value => format.bytes(value) + '/s' }
];

function svg(name, attributes) {
	const node = document.createElementNS(SVG, name);

	for (const [ key, value ] of Object.entries(attributes))
		node.setAttribute(key, value);

	return node;
}

function drawing() {
	const root = svg('svg', { viewBox: '0 0 %d %d'.format(WIDTH, HEIGHT), preserveAspectRatio: 'none', style: 'width:100%;height:90px;border:1px solid currentColor;opacity:.85' });
	const lines = COLOURS.map(name => root.appendChild(svg('polyline', { 'class': name, fill: 'none', stroke: 'currentColor', 'stroke-width': 2, 'vector-effect': 'non-scaling-stroke' })));

	return { root, lines };
}

const Graphs = baseclass.extend({
	__init__(container) {
		this.container = container;
		this.series = stats.make(120);
		this.drawn = GRAPHS.map(graph => ({ graph, ...drawing(), words: D.el('div', {}) }));
		this.note = D.el('p', {});
	},

	render() {
		return D.el('div', {}, this.note, D.el('div', { 'style': 'display:grid;grid-template-columns:repeat(auto-fit,minmax(260px,1fr));gap:1em' },
			this.drawn.map(({ graph, root, words }) => D.el('div', {}, D.el('strong', {}, graph.title()), words, root))));
	},

	start() {
		this.stream ??= live.follow('stats', { container: this.container }, item => this.take(item));
	},

	stop() {
		this.stream?.stop();
		this.stream = null;
	},

	take(item) {
		const runs = item.name === 'stats' && stats.ofRunning(item.json);

		if (runs)
			this.draw(this.series.push(item.json));

		if (item.name === 'error')
			D.fill(this.note, D.wordsOf(item.json));
		else
			D.fill(this.note, runs || item.name === 'begin' ? '' : _('The container does not run.'));
	},

	draw(sample) {
		for (const { graph, lines, words } of this.drawn) {
			const top = Math.max(graph.least, this.series.highest(graph.names)) * 1.1;

			graph.names.forEach((name, index) => lines[index].setAttribute('points', this.series.points(name, WIDTH, HEIGHT, top)));
			D.fill(words, graph.names.map((name, index) => D.el('span', { 'class': COLOURS[index], 'style': 'margin-right:1em' },
				graph.words()[index], ' ', graph.text(sample[name]))));
		}
	}
});

// the last day of a section's container: fetched once, and again on request
async function day(section) {
	const found = await calls.together().agent.load(section, 24), lasts = 24 * 60;
	const known = GRAPHS.filter(({ names }) => names.every(name => found[name]?.some(value => value !== null)));

	if (!found.history)
		return D.el('p', {}, _('The load of the last day is not kept: it is turned off in Settings.'));

	return D.el('div', { 'style': 'display:grid;grid-template-columns:repeat(auto-fit,minmax(260px,1fr));gap:1em' }, known.map(({ title, names, words, least, text }) => {
		const highest = Math.max(least, ...names.flatMap(name => found[name])), root = svg('svg', {
			viewBox: '0 0 %d %d'.format(WIDTH, HEIGHT), preserveAspectRatio: 'none', role: 'img', style: 'width:100%;height:60px;border:1px solid currentColor;opacity:.85',
			'aria-label': _('%s in the last 24 hours, at most %s').format(title(), text(highest))
		});

		names.forEach((name, index) => stats.partsOf(found[name].slice(-lasts), WIDTH, HEIGHT, highest * 1.1).forEach(points =>
			root.append(svg('polyline', { 'class': COLOURS[index], fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5, 'vector-effect': 'non-scaling-stroke', points }))));

		return D.el('div', {}, D.el('strong', {}, title()), ' ', names.length > 1 ? names.map((name, index) => D.el('small', { 'class': COLOURS[index], 'style': 'margin-right:.6em' }, words()[index])) : '',
			D.el('small', {}, _('at most %s').format(text(highest))), root);
	}));
}

return baseclass.extend({ make: container => new Graphs(container), day });
