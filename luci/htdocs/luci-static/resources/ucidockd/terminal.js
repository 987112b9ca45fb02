// SPDX-License-Identifier: GPL-2.0-or-later
// A console in a container: xterm.js over the tab's stream object. What the container writes is hostile: sequences that read
// or write the clipboard, or make the terminal answer (and so type), are ignored.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.live as live';
'require ucidockd.sentences as sentences';

const { agent } = calls;
const DATA_LIMIT = 16 * 1024;

// answers to these would go to the container as if they were typed
const REPORTS = [
	{ final: 'n' }, { prefix: '?', final: 'n' }, { final: 'c' }, { prefix: '>', final: 'c' }, { prefix: '=', final: 'c' }, { final: 't' },
	{ prefix: '>', final: 'q' }, { intermediates: '$', final: 'p' }, { prefix: '?', intermediates: '$', final: 'p' }, { prefix: '?', final: 'u' }
];
const ANSWERING_DCS = [ { intermediates: '$', final: 'q' }, { intermediates: '+', final: 'q' } ];
const SILENT_OSC = [ 0, 1, 2, 4, 8, 10, 11, 12, 21, 52, 104, 1337 ];

async function loadLibrary() {
	const { Terminal, FitAddon, CSS } = await import(L.resource('ucidockd/xterm/xterm.js'));

	document.head.append(D.el('style', {}, CSS));

	return { Terminal, FitAddon };
}

function toBase64(bytes) {
	return window.btoa(String.fromCharCode(...bytes));
}

function fromBase64(text) {
	return Uint8Array.from(window.atob(text), char => char.charCodeAt(0));
}

const Console = baseclass.extend({
	// `options`: {container, command: [word, ...], user}. `onFailed` is called when it cannot even be opened.
	__init__(options, onFailed) {
		this.options = options;
		this.onFailed = onFailed;
		this.place = D.el('div', { 'style': 'height:55vh' });
		this.note = D.el('p', {});
		this.typed = [];
		this.size = []; // that the agent knows
	},

	render() {
		return D.el('div', {}, this.note, this.place);
	},

	async open() {
		live.onConnection(connected => connected || this.fail());

		const { Terminal, FitAddon } = await loadLibrary();

		this.term = new Terminal({ cursorBlink: true, scrollback: 5000, linkHandler: { activate() {} } });
		this.fit = new FitAddon();
		this.silence(this.term.parser);
		this.term.loadAddon(this.fit);
		this.term.open(this.place);
		this.fit.fit();
		this.term.onData(text => this.type(new TextEncoder().encode(text)));
		this.term.onBinary(text => this.type(Uint8Array.from(text, char => char.charCodeAt(0))));
		this.term.onResize(() => this.resize());
		this.observer = new ResizeObserver(() => this.place.clientWidth && this.fit.fit());
		this.observer.observe(this.place);
		this.stream = live.follow('console', () => this.args(), item => this.take(item), { keep: true });
		this.term.focus();
	},

	silence(parser) {
		REPORTS.forEach(id => parser.registerCsiHandler(id, () => true));
		ANSWERING_DCS.forEach(id => parser.registerDcsHandler(id, () => true));
		SILENT_OSC.forEach(id => parser.registerOscHandler(id, () => true));
	},

	args() {
		const { rows, cols: columns } = this.term;

		this.size = [ rows, columns ];

		return { ...this.options, tty: true, rows, columns };
	},

	take(item) {
		switch (item.name) {
		case 'begin': // the process ended with the stream that it was on: this is another one
			this.begun && this.term.write('\r\n%s\r\n'.format(_('The connection was lost, and the process with it. A new one:')));
			this.begun = true;
			this.typed = [];
			break;
		case 'open':
			this.opened = true;
			this.resize();
			this.send();
			break;
		case 'stdout':
		case 'stderr':
			this.term.write(fromBase64(item.bytes));
			break;
		case 'exit':
			this.end(item.json.reason ? _('The console ended: %s').format(sentences.say(item.json.reason)) : _('The process ended with code %s.').format(item.json.code));
			break;
		case 'error':
			this.fail();
			this.end(D.wordsOf(item.json));
			break;
		}
	},

	fail() {
		if (!this.opened && this.stream)
			this.onFailed?.();
	},

	end(reason) {
		D.fill(this.note, reason);
		this.stream?.stop();
		this.stream = null;
		this.observer?.disconnect();
	},

	close() {
		this.end(_('Closed.'));
		this.term?.dispose();
	},

	type(bytes) {
		this.typed.push(...bytes);
		this.send();
	},

	// One call at a time, so that what is typed stays in order. What did not arrive is not sent again: it may have arrived all
	// the same, and nobody wants to have confirmed something twice. Nor is what was typed after it: it was meant to follow.
	async send() {
		if (this.sending)
			return;

		this.sending = true;

		try {
			for (let place = this.stream?.place(); place && this.typed.length; place = this.stream?.place()) {
				await agent.stream_input(...place, toBase64(this.typed.splice(0, DATA_LIMIT)));
				this.say();
			}
		} catch (error) {
			this.typed = [];
			this.say(_('Your input did not arrive: %s').format(D.wordsOf(error)));
		} finally {
			this.sending = false;
		}
	},

	// the answer to what ended the process may come after the word of its end, which stays
	say(...words) {
		if (this.stream)
			D.fill(this.note, ...words);
	},

	resize() {
		const place = this.stream?.place(), { rows, cols: columns } = this.term;

		if (!place || (rows === this.size[0] && columns === this.size[1]))
			return;

		this.size = [ rows, columns ];
		agent.stream_resize(...place, rows, columns).catch(() => {});
	}
});

return baseclass.extend({ make: (options, onFailed) => new Console(options, onFailed) });
