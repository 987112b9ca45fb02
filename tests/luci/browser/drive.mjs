// SPDX-License-Identifier: GPL-2.0-or-later
// Pages in one Chromium. Each line on stdin is [verb, argument, ...] as JSON and is about the tab chosen last, each answer one on stdout.
// usage: node drive.mjs PLAYWRIGHT
import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';

const { chromium } = createRequire(import.meta.url)(process.argv[2]);
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: [ '--no-sandbox' ] });
const context = await browser.newContext({ acceptDownloads: true });
const tabs = new Map(), errors = [];
let page, clicks = [], requests = [];

// Clicks of a mouse, with what they met. A label hands its click on to its field: the second one has no detail.
await context.exposeBinding('clicked', (_source, what) => clicks.push(what));
await context.addInitScript(() => document.addEventListener('click', ({ isTrusted, detail, target }) =>
	isTrusted && detail && window.clicked((target.innerText || target.ariaLabel || target.tagName).trim().slice(0, 30)), true));

async function choose(name) {
	if (!tabs.has(name)) {
		const made = await context.newPage();
		made.setDefaultTimeout(45000);
		made.on('request', request => requests.push(`${request.method()} ${new URL(request.url()).pathname} ${request.postData() ?? ''}`));
		made.on('pageerror', error => errors.push(error.stack));
		// what could not be fetched is the page's to tell
		made.on('console', line => line.type() === 'error' && !line.text().startsWith('Failed to load resource') && errors.push(line.text()));
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
	// a page of the app, once it is drawn
	visit: async url => {
		await page.goto('about:blank');
		clicks = [];
		requests = [];
		await page.goto(url);
		await page.waitForFunction(() => window.ready).catch(error => Promise.reject(new Error([ error.message, ...errors ].join('\n'))));
	},
	// clicks and requests since the last `visit`
	clicks: async () => clicks,
	requests: async () => requests,
	touch: selector => page.click(selector),
	// clicks; gives the file that comes of it, as {name, text}
	download: async selector => {
		const [ download ] = await Promise.all([ page.waitForEvent('download'), page.click(selector) ]);
		return { name: download.suggestedFilename(), text: await readFile(await download.path(), 'latin1') };
	},
	// clicks, and chooses the file at `path`
	upload: async (selector, path) => {
		const [ chooser ] = await Promise.all([ page.waitForEvent('filechooser'), page.click(selector) ]);
		await chooser.setFiles(path);
	},
	shot: path => page.screenshot({ path, fullPage: true }),
	// a style sheet for what is shown, and a picture of it without the caret
	dress: path => page.addStyleTag({ path }),
	picture: async (path, width, height) => {
		await page.setViewportSize({ width, height });
		await page.screenshot({ path });
	},
	click: text => page.click(`button:has-text("${text}")`),
	// what cannot be fetched from now on; '' for nothing
	block: async pattern => {
		await page.unrouteAll();
		pattern && await page.route(pattern, route => route.abort());
	},
	choose: (selector, value) => page.selectOption(selector, value),
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
