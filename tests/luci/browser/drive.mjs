// SPDX-License-Identifier: GPL-2.0-or-later
// Pages in one Chromium. Each line on stdin is [verb, argument, ...] as JSON and is about the tab chosen last, each answer one on stdout.
// usage: node drive.mjs PLAYWRIGHT
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const { chromium } = createRequire(import.meta.url)(process.argv[2]);
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: [ '--no-sandbox' ] });
const context = await browser.newContext();
const tabs = new Map(), errors = [];
let page;

async function choose(name) {
	if (!tabs.has(name)) {
		const made = await context.newPage();
		made.setDefaultTimeout(45000);
		made.on('pageerror', error => errors.push(error.stack));
		tabs.set(name, made);
	}
	page = tabs.get(name);
	await page.bringToFront();
}

await choose('first');

const verbs = {
	tab: choose,
	// the tab is closed; `first` is chosen
	close: async name => {
		await tabs.get(name).close({ runBeforeUnload: false });
		tabs.delete(name);
		await choose('first');
	},
	// as a browser does with a tab in the background: `frozen` or `active`
	lifecycle: async state => (await context.newCDPSession(page)).send('Page.setWebLifecycleState', { state }),
	open: async url => {
		await page.goto(url);
		await page.waitForFunction(() => window.ready);
	},
	show: (name, options, begin) => page.evaluate(args => window.show(...args), [ name, options, begin ]),
	view: (name, id) => page.evaluate(args => window.view(...args), [ name, id ]),
	click: text => page.click(`button:has-text("${text}")`),
	fill: (selector, text) => page.fill(selector, text),
	type: text => page.keyboard.type(text),
	press: key => page.keyboard.press(key),
	evaluate: code => page.evaluate(code),
	// until the page makes it true; gives what it is then
	until: async code => (await page.waitForFunction(code)).jsonValue(),
	errors: async () => errors
};

try {
	for await (const line of createInterface({ input: process.stdin })) {
		const [ verb, ...values ] = JSON.parse(line);
		const answer = await verbs[verb](...values).then(value => ({ value: value ?? null }), error => ({ error: error.message }));
		console.log(JSON.stringify(answer));
	}
} finally {
	await browser.close();
}
