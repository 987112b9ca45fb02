// SPDX-License-Identifier: GPL-2.0-or-later
// A page in Chromium. Each line on stdin is [[method of the page or the keyboard, argument, ...]] as JSON, each answer one on stdout.
// usage: node drive.mjs PLAYWRIGHT
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const { chromium } = createRequire(import.meta.url)(process.argv[2]);
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: [ '--no-sandbox' ] });
const page = await browser.newPage();
const errors = [];

page.setDefaultTimeout(45000);
page.on('pageerror', error => errors.push(error.stack));

const verbs = {
	open: async url => {
		await page.goto(url);
		await page.waitForFunction(() => window.ready);
	},
	show: (name, options, begin) => page.evaluate(args => window.show(...args), [ name, options, begin ]),
	click: text => page.click(`button:has-text("${text}")`),
	fill: (selector, text) => page.fill(selector, text),
	type: text => page.keyboard.type(text),
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
