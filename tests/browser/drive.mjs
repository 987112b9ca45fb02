// SPDX-License-Identifier: GPL-2.0-or-later
// Opens a page in Chromium, runs its `run(...)` and prints what that gave as JSON.
// usage: node drive.mjs PLAYWRIGHT URL USER PASSWORD ARGUMENT...
import { createRequire } from 'node:module';

const [playwright, url, username, password, ...rest] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
try {
	const context = await browser.newContext({ ignoreHTTPSErrors: true, httpCredentials: { username, password } });
	const page = await context.newPage();
	await page.goto(url);
	console.log(JSON.stringify(await page.evaluate(args => run(...args), rest)));
} finally {
	await browser.close();
}
