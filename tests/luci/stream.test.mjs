// SPDX-License-Identifier: GPL-2.0-or-later
// The stream object that the tabs of a browser share: what each tab hears while tabs come, go, hide, sleep and die.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Browser } from './browser_of_tabs.mjs';

const START_MS = 700;

test('two streams of a tab share one object, and each gets its own items', async () => {
	const browser = new Browser(), tab = browser.tab();
	const logs = tab.follow('logs'), events = tab.follow('events');
	await browser.clock.pass(START_MS);
	browser.agent.send('logs', 'x');
	browser.agent.send('events', 'y');
	await browser.clock.settle();
	assert.deepEqual([ logs.seen, events.seen ], [ [ 'begin', 'x' ], [ 'begin', 'y' ] ]);
	assert.equal(browser.agent.objects.size, 1);
	assert.deepEqual(logs.place(), [ 'object1', 1 ]);
});

test('the status is asked for with the object, once, and any other stream after it', async () => {
	const browser = new Browser(), tab = browser.tab();
	const asked = [], { open } = browser.agent;
	browser.agent.open = spec => asked.push([ spec?.id, spec?.kind ]) && open.call(browser.agent, spec);
	const events = tab.follow('events'), seen = tab.follow('status');
	await browser.clock.pass(START_MS);
	assert.deepEqual(asked, [ [ undefined, 'status' ], [ 'object1', 'events' ] ]);
	browser.agent.send('status', 's');
	browser.agent.send('events', 'e');
	await browser.clock.settle();
	assert.deepEqual([ seen.seen, events.seen ], [ [ 'begin', 'status', 's' ], [ 'begin', 'e' ] ]);
});

test('a new object is first read after its streams are asked for, without waiting, so that one request has both', async () => {
	const browser = new Browser(), tab = browser.tab();
	const asked = [], { open, read } = browser.agent;
	browser.agent.open = spec => asked.push(spec?.kind) && open.call(browser.agent, spec);
	browser.agent.read = (id, after, wait) => asked.push(wait) && read.call(browser.agent, id, after, wait);
	[ 'status', 'events', 'logs' ].forEach(kind => tab.follow(kind));
	await browser.clock.pass(START_MS);
	assert.deepEqual(asked.slice(0, 4), [ 'status', 'events', 'logs', 0 ]);
	assert.ok(asked.slice(4).every(wait => wait > 0));
});

test('a stream that has ended is not closed as well', async () => {
	const browser = new Browser(), tab = browser.tab(), closed = [];
	browser.agent.close = async (...given) => closed.push(given);
	const shell = tab.follow('console'), other = tab.follow('events');
	await browser.clock.pass(START_MS);
	browser.agent.send('console', '', 'end');
	await browser.clock.settle();
	shell.stop();
	assert.deepEqual(closed, []);
	other.stop();
	assert.equal(closed.length, 1);
});

test('twelve tabs have one object and one fetch, and each its own items', async () => {
	const browser = new Browser(), tabs = [];
	for (let count = 0; count < 12; count++) {
		tabs.push(browser.tab());
		tabs[count].log = tabs[count].follow(`logs${count}`);
	}
	await browser.clock.pass(START_MS);
	assert.deepEqual([ browser.agent.objects.size, tabs.filter(tab => tab.leads()).length ], [ 1, 1 ]);
	tabs.forEach((_tab, count) => browser.agent.send(`logs${count}`, `line of ${count}`));
	await browser.clock.pass(100);
	tabs.forEach((tab, count) => assert.deepEqual(tab.log.seen, [ 'begin', `line of ${count}` ]));
});

test('a tab that comes later joins at once, without another object', async () => {
	const browser = new Browser();
	browser.tab().follow('status');
	await browser.clock.pass(60_000);
	const log = browser.tab().follow('logs');
	await browser.clock.settle();
	browser.agent.send('logs', 'x');
	await browser.clock.settle();
	assert.deepEqual([ log.seen, browser.agent.opened ], [ [ 'begin', 'x' ], 1 ]);
});

for (const [ how, gone, patience ] of [ [ 'is closed', tab => tab.close(), 500 ], [ 'dies', tab => tab.kill(), 8000 ], [ 'falls asleep', tab => tab.sleep(), 8000 ], [ 'is hidden', tab => tab.hide(true), 500 ] ])
	test(`when the leader ${how}, another tab reads on: nothing twice, nothing lost, consoles go on`, async () => {
		const browser = new Browser(), leader = browser.tab(), other = browser.tab();
		leader.follow('status');
		await browser.clock.pass(START_MS);
		const shell = other.follow('console', { keep: true });
		await browser.clock.settle();
		assert.ok(leader.leads());
		browser.agent.send('console', 'a');
		await gone(leader);
		browser.agent.send('console', 'b');
		await browser.clock.pass(patience);
		assert.ok(other.leads());
		browser.agent.send('console', 'c');
		await browser.clock.settle();
		await leader.wake();
		browser.agent.send('console', 'd');
		await browser.clock.pass(3000);
		assert.deepEqual(shell.seen, [ 'begin', 'a', 'b', 'c', 'd' ]);
		assert.deepEqual([ browser.agent.opened, [ leader, other ].filter(tab => tab.leads() && !tab.dead).length ], [ 1, 1 ]);
	});

test('a hidden tab lets go after a while, and comes back', async () => {
	const browser = new Browser(), tab = browser.tab(), log = tab.follow('logs');
	await browser.clock.pass(START_MS);
	await tab.hide(true);
	assert.equal(browser.agent.objects.size, 1);
	await browser.clock.pass(2000);
	assert.equal(browser.agent.objects.size, 0);
	await tab.hide(false);
	await browser.clock.pass(START_MS);
	browser.agent.send('logs', 'x');
	await browser.clock.settle();
	assert.deepEqual(log.seen, [ 'begin', 'begin', 'x' ]);
	assert.deepEqual(tab.heard, [ true, true ], 'letting go is not the agent being away');
});

test('a tab that is opened in the background asks for nothing', async () => {
	const browser = new Browser(), tab = browser.tab({ hidden: true });
	tab.follow('logs');
	await browser.clock.pass(60_000);
	assert.deepEqual([ browser.agent.opened, browser.agent.reads ], [ 0, 0 ]);
});

test('a console that is alone in a hidden tab goes on, and gives the lead to a tab that is seen', async () => {
	const browser = new Browser(), hidden = browser.tab(), shell = hidden.follow('console', { keep: true });
	await browser.clock.pass(START_MS);
	await hidden.hide(true);
	await browser.clock.pass(60_000);
	browser.agent.send('console', 'a');
	await browser.clock.settle();
	assert.deepEqual([ shell.seen, hidden.leads() ], [ [ 'begin', 'a' ], true ]);
	const seen = browser.tab();
	seen.follow('status');
	await browser.clock.pass(START_MS);
	await hidden.hide(true);
	await browser.clock.pass(START_MS);
	assert.deepEqual([ hidden.leads(), seen.leads(), browser.agent.opened ], [ false, true, 1 ]);
});

test('tabs of two sessions never share an object', async () => {
	const browser = new Browser(), one = browser.tab({ session: 'a' }), two = browser.tab({ session: 'b' });
	const first = one.follow('logs'), second = two.follow('events');
	await browser.clock.pass(START_MS);
	assert.equal(browser.agent.objects.size, 2);
	browser.agent.send('logs', 'x');
	await browser.clock.settle();
	assert.deepEqual([ first.seen, second.seen ], [ [ 'begin', 'x' ], [ 'begin' ] ]);
	await one.close();
	await browser.clock.pass(60_000);
	assert.ok(two.leads());
	assert.equal(browser.agent.objects.size, 1);
});

test('where there is no BroadcastChannel each tab reads for itself', async () => {
	const browser = new Browser(), tabs = [ browser.tab({ alone: true }), browser.tab({ alone: true }) ];
	const logs = tabs.map(tab => tab.follow('logs'));
	await browser.clock.pass(START_MS);
	browser.agent.send('logs', 'x');
	await browser.clock.settle();
	logs.forEach(log => assert.deepEqual(log.seen, [ 'begin', 'x' ]));
	await tabs[0].close();
	assert.equal(browser.agent.objects.size, 1);
});

test('a tab that closes takes its own streams with it, the last one the object', async () => {
	const browser = new Browser(), one = browser.tab(), two = browser.tab();
	one.follow('logs');
	await browser.clock.pass(START_MS);
	two.follow('logs');
	two.follow('stats');
	await browser.clock.settle();
	const [ object ] = browser.agent.objects.values();
	assert.equal(object.streams.size, 3);
	await two.close();
	assert.deepEqual([ ...object.streams.values() ].map(stream => stream.kind), [ 'logs' ]);
	await one.close();
	assert.equal(browser.agent.objects.size, 0);
});

test('the streams of a tab that died are closed by the others', async () => {
	const browser = new Browser(), one = browser.tab(), two = browser.tab();
	one.follow('status');
	await browser.clock.pass(START_MS);
	two.follow('logs');
	await browser.clock.settle();
	two.kill();
	await browser.clock.pass(200_000);
	assert.equal([ ...browser.agent.objects.values() ][0].streams.size, 1);
});

test('a stream that stops before its first item is closed all the same', async () => {
	const browser = new Browser(), tab = browser.tab();
	tab.follow('status');
	await browser.clock.pass(START_MS);
	tab.follow('logs').stop();
	await browser.clock.settle();
	assert.deepEqual([ ...browser.agent.objects.values() ].flatMap(object => [ ...object.streams.values() ]).map(one => one.kind), [ 'status' ]);
});

test('an object that the agent closed is opened again, and every page hears of both', async () => {
	const browser = new Browser(), one = browser.tab(), two = browser.tab();
	const logs = [ one, two ].map(tab => tab.follow('logs'));
	await browser.clock.pass(START_MS);
	browser.agent.failing = new Error('no agent');
	browser.agent.end('object1', 'the agent stops');
	await browser.clock.pass(3000);
	assert.deepEqual(one.heard.slice(0, 3), [ true, 'the agent stops', 'no agent' ]);
	browser.agent.failing = null;
	await browser.clock.pass(15_000);
	browser.agent.send('logs', 'x');
	await browser.clock.settle();
	logs.forEach(log => assert.deepEqual([ log.seen.at(-1), log.seen.filter(word => word === 'x').length ], [ 'x', 1 ]));
	assert.equal(browser.agent.objects.size, 1);
	assert.equal(two.heard.at(-1), true);
});

test('a network that fails for some seconds costs nothing', async () => {
	const browser = new Browser(), tab = browser.tab(), log = tab.follow('logs');
	await browser.clock.pass(START_MS);
	browser.agent.failing = new Error('no network');
	browser.agent.send('logs', 'a');
	await browser.clock.pass(5000);
	browser.agent.failing = null;
	browser.agent.send('logs', 'b');
	await browser.clock.pass(3000);
	assert.deepEqual([ log.seen, tab.heard ], [ [ 'begin', 'a', 'b' ], [ true ] ]);
});

test('when the login ends every tab asks once more, and never again', async () => {
	const browser = new Browser(), tabs = [ browser.tab(), browser.tab(), browser.tab() ];
	tabs.forEach(tab => tab.follow('logs'));
	await browser.clock.pass(START_MS);
	browser.agent.failing = Object.assign(new Error('Login session is expired'), { name: 'SessionError' });
	browser.agent.end('object1', 'the session ended');
	await browser.clock.pass(10_000);
	const { reads } = browser.agent;
	tabs.forEach(tab => assert.equal(tab.heard.at(-1), 'Login session is expired'));
	browser.agent.failing = null;
	await browser.clock.pass(120_000);
	assert.deepEqual([ browser.agent.reads, browser.agent.objects.size ], [ reads, 0 ]);
});

test('a stream that may not be opened says so and leaves the others alone', async () => {
	const browser = new Browser(), tab = browser.tab(), seen = [];
	tab.live.follow('refused', {}, item => seen.push(item));
	const logs = tab.follow('logs');
	await browser.clock.pass(START_MS);
	assert.deepEqual(seen, [ { name: 'begin' }, { name: 'error', json: { message: 'Permission denied' } } ]);
	assert.ok(logs.place());
});

test('a stream that Docker ended by going begins again: at once when the status says that Docker is back', async () => {
	const browser = new Browser(), tab = browser.tab(), seen = tab.follow('status'), log = tab.follow('logs');
	await browser.clock.pass(START_MS);
	browser.agent.engine(false);
	await browser.clock.pass(60_000);
	assert.deepEqual(log.seen, [ 'begin', 'error' ], 'nothing is asked while Docker is away');
	browser.agent.engine(true);
	await browser.clock.settle();
	browser.agent.send('logs', 'x');
	await browser.clock.pass(10_000);
	assert.deepEqual(log.seen, [ 'begin', 'error', 'begin', 'x' ]);
	assert.equal(seen.seen.filter(word => word === 'begin').length, 1);
});

test('it begins again as well when Docker was away too shortly for the status, or no page follows the status', async () => {
	const browser = new Browser(), tab = browser.tab(), log = tab.follow('logs');
	await browser.clock.pass(START_MS);
	browser.agent.lose();
	await browser.clock.pass(2500);
	browser.agent.send('logs', 'x');
	await browser.clock.settle();
	assert.deepEqual(log.seen, [ 'begin', 'error', 'begin', 'x' ]);
	const ended = tab.follow('events');
	await browser.clock.settle();
	browser.agent.lose();
	await browser.clock.settle();
	ended.stop();
	await browser.clock.pass(10_000);
	assert.deepEqual(ended.seen, [ 'begin', 'error' ], 'one that was stopped does not');
});

// what no single case above has: all of it at random, with a console in each tab that must hear everything once and in order
for (let seed = 1; seed <= 60; seed++)
	test(`tabs come, go, hide and sleep at random (${seed})`, async () => {
		const random = generator(seed), pick = list => list[Math.floor(random() * list.length)];
		const browser = new Browser(), tabs = [];
		let sent = 0;
		const add = () => {
			const tab = browser.tab();
			tab.shell = tab.follow('console', { keep: true });
			tab.log = tab.follow('logs');
			tab.status = tab.follow('status');
			tabs.push(tab);
		};
		const awake = () => tabs.filter(tab => !tab.asleep);
		add();
		await browser.clock.pass(START_MS);
		for (let step = 0; step < 60; step++) {
			const what = random();
			if (what < 0.12 && tabs.length < 6) {
				add();
			} else if (what < 0.2 && tabs.length > 1) {
				const tab = pick(tabs);
				if (awake().every(one => one === tab))
					continue;
				tabs.splice(tabs.indexOf(tab), 1);
				tab.asleep || random() < 0.3 ? tab.kill() : await tab.close();
			} else if (what < 0.35) {
				const tab = pick(tabs);
				await tab.hide(!tab.page.hidden);
			} else if (what < 0.42 && awake().length > 1) {
				pick(awake()).sleep();
			} else if (what < 0.5) {
				await pick(tabs).wake();
			} else if (what < 0.56) {
				browser.agent.engine(random() < 0.5);
			} else if (what < 0.6) {
				browser.agent.lose();
			} else {
				browser.agent.send('console', sent++);
			}
			await browser.clock.pass(pick([ 0, 0, 10, 200, 3000, 12_000 ]));
		}
		for (const tab of tabs) {
			await tab.wake();
			await tab.hide(false);
		}
		browser.agent.engine(true);
		await browser.clock.pass(30_000);
		browser.agent.send('logs', 'last');
		browser.agent.send('console', sent++);
		await browser.clock.pass(1000);
		// two at most: a tab that came while all others slept has its own
		assert.deepEqual(tabs.filter(tab => tab.leads()).map(tab => tab.live.circle.object.id).sort(), [ ...browser.agent.objects.keys() ].sort());
		for (const { shell: { seen }, log: logs, slept } of tabs) {
			const begins = seen.filter(word => word === 'begin').length, from = seen.lastIndexOf('begin') + 1;
			// the agent ends an object whose tabs all sleep
			assert.ok(begins === 1 || slept, 'its process went on');
			assert.ok(logs.seen.at(-1) === 'last' && logs.seen.filter(word => word === 'last').length === 1, 'its log goes on, and once');
			assert.deepEqual(seen.slice(from), Array.from({ length: seen.length - from }, (_none, index) => sent - (seen.length - from) + index));
		}
	});

function generator(seed) {
	let state = seed;
	return () => {
		state = (state * 1664525 + 1013904223) % 4294967296;
		return state / 4294967296;
	};
}
