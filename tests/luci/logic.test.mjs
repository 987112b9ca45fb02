// SPDX-License-Identifier: GPL-2.0-or-later
// Status model, plan, log buffer, stats, events, formats.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';

import { load } from './load.mjs';

const status = load('ucidockd.status');
const sentences = load('ucidockd.sentences');
const plan = load('ucidockd.plan');
const logs = load('ucidockd.logbuffer');
const stats = load('ucidockd.stats');
const format = load('ucidockd.format');

const resource = (key, level, verdict, ...conditions) => ({
	key, level, verdict, kind: key.split(':')[0], section: key.split(':')[1], object_id: `id-${key}`,
	conditions: conditions.map(([ type, value, reason ]) => ({ type, status: value, reason, label: `of ${reason}`, message: `${reason}!`, advice: `Mend ${reason}.`, since: 7 }))
});

test('status: the condition that the agent names decides, with the level that the agent gives', () => {
	const found = status.verdict(resource('container:web', 'error', 'Degraded', [ 'Accepted', true, 'Valid' ], [ 'Degraded', true, 'Failed' ]));
	assert.deepEqual(found, { level: 'error', type: 'Degraded', label: 'of Failed', message: 'Failed!', advice: 'Mend Failed.', since: 7, output: '' });
});

test('watch: a list that does not come says who does not answer', async () => {
	const watch = load('ucidockd.watch', { 'ucidockd.dom': { wordsOf: error => error.message }, 'ucidockd.live': {}, 'ucidockd.status': {} });
	assert.deepEqual([ await watch.list(Promise.resolve([ 1 ])), watch.silence() ], [ [ 1 ], '' ]);
	assert.deepEqual([ await watch.list(Promise.reject(Object.assign(new Error('no engine'), { status: 500 }))), watch.silence() ], [ null, 'Docker does not answer.' ]);
	assert.deepEqual([ await watch.list(Promise.reject(new Error('the agent is away'))), watch.silence() ], [ null, 'the agent is away' ]);
});

test('sentences: a mistake with its option, what is expected and its line is translated in each part', () => {
	const catalogue = { 'host ports taken by other containers: %s': 'belegt: %s', 'its own host port or address': 'ein eigener', '%s is free': '%s ist frei', 'expected: %s': 'erwartet: %s', '%s and %s': '%s und %s', '%s or %s': '%s oder %s', '%s needs %s: the container cannot run': '%s braucht %s',
		'an address that begins with %s': 'eine mit %s', 'is missing': 'fehlt', 'is too small (%s means %s bytes)': 'zu klein, %s sind %s', 'no answer within %s s': 'stumm seit %s s', '%s (%s)': '%s [%s]', '%s changed': '%s anders' };
	const plain = globalThis._;
	globalThis._ = text => catalogue[text] ?? text;
	try {
		assert.equal(sentences.say('containers.web.port[0]: host ports taken by other containers: 8080/tcp (clash), expected its own host port or address; 8081 is free (/etc/config/containers:5)'),
			'containers.web.port[0]: belegt: 8080/tcp [clash]; erwartet: ein eigener; 8081 ist frei (/etc/config/containers:5)');
		assert.equal(sentences.say('syslog needs syslog-address and tag: the container cannot run'), 'syslog braucht syslog-address und tag');
		assert.equal(sentences.say('an address that begins with http:// or https://'), 'eine mit http:// oder https://');
		assert.equal(sentences.say('containers.a.port[0]: x (y), expected z (/etc/config/containers:8); dockerd.b.size: is too small (64 means 64 bytes), expected its own host port or address (/etc/config/dockerd:9)'),
			'containers.a.port[0]: x [y]; erwartet: z (/etc/config/containers:8); dockerd.b.size: zu klein, 64 sind 64; erwartet: ein eigener (/etc/config/dockerd:9)');
		assert.equal(sentences.say('containers.a.image: is missing; containers.b.image: is missing'), 'containers.a.image: fehlt; containers.b.image: fehlt');
		assert.equal(sentences.say('host ports taken by other containers: 8080/tcp (a) (expected its own host port or address; 8081 is free); is missing'),
			'belegt: 8080/tcp [a] (erwartet: ein eigener; 8081 ist frei); fehlt');
		assert.equal(sentences.say('hooks.lan: no answer within 5 s'), 'hooks.lan: stumm seit 5 s');
		assert.equal(sentences.say('env, cpus and image changed'), 'env, cpus und image anders');
		assert.equal(sentences.say('it cannot go on and on: some new words, of a later agent'), 'it cannot go on and on: some new words, of a later agent');
	} finally {
		globalThis._ = plain;
	}
});

test('sentences: what Docker and registries say most often is translated, but for its names', () => {
	const said = {
		'No such image: nginx:nope': 'nginx nope',
		'cannot pull nginx:nope: manifest for nginx:nope not found: manifest unknown: manifest unknown': 'nginx nope nginx nope',
		"cannot pull ghost: pull access denied for ghost, repository does not exist or may require 'docker login': denied: requested access to the resource is denied": 'ghost ghost',
		'cannot pull a.lan/b: Get "https://a.lan/v2/": dial tcp: lookup a.lan on 127.0.0.1:53: no such host': 'lan https lan lan',
		'cannot pull a.lan/b: Get "https://a.lan/v2/": dial tcp: lookup a.lan on 127.0.0.1:53: i/o timeout': 'lan https lan lan',
		'cannot pull a.lan/b: Get "https://a.lan/v2/": dial tcp 10.0.0.9:443: connect: connection refused': 'lan https lan',
		'cannot pull a.lan/b: Get "https://a.lan/v2/": net/http: TLS handshake timeout': 'lan https lan',
		'cannot pull a.lan/b: Get "https://a.lan/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority': 'lan https lan',
		'cannot pull a.lan/b: Get "https://a.lan/v2/": http: server gave HTTP response to HTTPS client': 'lan https lan',
		'cannot pull arm: no matching manifest for linux/amd64 in the manifest list entries': 'arm linux',
		'driver failed programming external connectivity on endpoint web (ab12): Bind for 0.0.0.0:8080 failed: port is already allocated': 'web',
		'driver failed programming external connectivity on endpoint web (ab12): failed to bind port 0.0.0.0:80/tcp: Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use': 'web tcp',
		'failed to set up container networking: driver failed programming external connectivity on endpoint web (ab12): failed to bind host port for 0.0.0.0:80:172.17.0.2:80/tcp: address already in use': 'web tcp',
		'exec: "nope": executable file not found in $PATH': 'nope',
		'exec: "/start.sh": permission denied': 'start',
		'exec /init: exec format error': 'init',
		'write /opt/docker/tmp/GetImageBlob12: no space left on device': 'opt docker tmp',
		'error gathering device information while adding custom device "/dev/ttyUSB0": no such file or directory': 'dev',
		'remove data: volume is in use - [ab12]': 'data',
		'Conflict. The container name "/web" is already in use by container "ab12". You have to remove (or rename) that container to be able to reuse that name.': 'web',
		'conflict: unable to delete ab12 (cannot be forced) - image is being used by running container cd34': '',
		'dockerd did not start: exit code 1: failed to start daemon: error initializing graphdriver: driver not supported: overlay2': '',
		'dockerd refuses these settings: unable to configure the Docker daemon with file /etc/x.json: the following directives don\'t match any configuration option: nope': 'etc json nope'
	};
	const keys = new Set([ ...readFileSync(new URL('../../luci/po/templates/ucidockd.pot', import.meta.url), 'utf8').matchAll(/^msgid (".*")$/gm) ].map(([ , text ]) => JSON.parse(text)));
	const plain = globalThis._;
	globalThis._ = text => keys.has(text) ? text.split('%s').map(part => part.replace(/[A-Za-z]/g, 'x')).join('%s') : text;
	try {
		for (const [ text, names ] of Object.entries(said))
			assert.equal((sentences.say(text).match(/\b(?!x+\b)[A-Za-z]{3,}\b/g) ?? []).join(' '), names, text);
	} finally {
		globalThis._ = plain;
	}
});

test('sentences: those with names in them are translated, their parts too, and what is not known stays', () => {
	const catalogue = { 'the change waits: %s': 'die Änderung wartet: %s', 'bind source %s is not there': '%s fehlt', 'exited with %s': 'endete mit %s', 'it should be running': 'soll laufen', '%s (%s)': '%s [%s]', 'SSH keys': 'SSH-Schlüssel', passwords: 'Passwörter', stop: 'stoppen',
		'docker run has no such flag': 'unbekannt', 'did you mean %s?': 'meinten Sie %s?', 'if the word after it is its value and not the image, write --%s=...': 'sonst --%s=...', 'write the value instead of %s, which only a shell knows': 'statt %s, das die Shell kennt', 'write the value instead of %s': 'statt %s', 'line %s: %s': 'Zeile %s: %s', '%s is there already, in line %s': '%s doppelt, Zeile %s', 'its value is %s': 'Wert: %s', 'written as `option restart %s`': 'als `option restart %s`' };
	const plain = globalThis._;
	globalThis._ = text => catalogue[text] ?? text;
	try {
		assert.equal(sentences.say('the change waits: bind source /mnt/<b>x</b> is not there'), 'die Änderung wartet: /mnt/<b>x</b> fehlt');
		assert.equal(sentences.say('exited with 3; it should be running'), 'endete mit 3; soll laufen');
		assert.equal(sentences.say('the change waits: exited with 3; it should be running'), 'die Änderung wartet: endete mit 3; soll laufen');
		assert.equal(sentences.say('exited with %s {{x}}'), 'endete mit %s {{x}}');
		assert.equal(sentences.say('/etc (SSH keys, passwords)'), '/etc [SSH-Schlüssel, Passwörter]');
		assert.equal(sentences.say('SSH keys, what is new'), 'SSH keys, what is new');
		assert.deepEqual([ 'something else: 3', '', undefined ].map(sentences.say), [ 'something else: 3', '', undefined ]);
		assert.equal(sentences.say('docker run has no such flag (did you mean name?); if the word after it is its value and not the image, write --nmae=...'), 'unbekannt [meinten Sie name?]; sonst --nmae=...');
		assert.equal(sentences.say('write the value instead of $X, which only a shell knows'), 'statt $X, das die Shell kennt');
		assert.equal(sentences.say("line 7: 'image' is there already, in line 3"), "Zeile 7: 'image' doppelt, Zeile 3");
		assert.equal(sentences.say('its value is <b>1</b>'), 'Wert: <b>1</b>');
		assert.equal(sentences.say('written as `option restart stop`'), 'als `option restart stop`');
		assert.deepEqual([ 'stop', 'strange' ].map(sentences.verb), [ 'stoppen', 'strange' ]);
	} finally {
		globalThis._ = plain;
	}
});

test('status: a section of which nothing is known yet is pending', () => {
	const { level, label } = status.verdict(resource('container:web', 'waiting', 'Synced'));
	assert.deepEqual([ level, label ], [ 'waiting', 'Not checked yet' ]);
});

test('status: a stream of items gives the same as a snapshot, and changes apply to it', () => {
	const web = resource('container:web', 'ok', 'Synced', [ 'Synced', true, 'InSync' ]), lan = resource('network:lan', 'waiting', 'Synced', [ 'Synced', false, 'Pending' ]);
	const model = status.make(), whole = status.make();
	assert.equal(model.take({ name: 'status', json: { version: 5, agent: { generation: 'a' } } }), false);
	assert.equal(model.take({ name: 'resource', json: web }), false);
	assert.equal(model.take({ name: 'resource', json: lan }), false);
	assert.equal(model.take({ name: 'synced', json: { version: 5 } }), true);
	whole.replace({ version: 5, agent: { generation: 'a' }, resources: [ lan, web ] });
	assert.deepEqual(model.resources(), whole.resources());
	assert.deepEqual(model.counts(), { ok: 1, waiting: 1, off: 0, warning: 0, error: 0 });
	assert.equal(model.ownerOf('id-container:web').key, 'container:web');
	assert.equal(model.take({ name: 'change', json: { id: 6, key: 'network:lan', removed: true } }), true);
	assert.equal(model.take({ name: 'change', json: { id: 7, key: 'agent', agent: { generation: 'b' } } }), true);
	assert.deepEqual(model.resources().map(one => one.key), [ 'container:web' ]);
	assert.deepEqual([ model.agent.generation, model.version ], [ 'b', 7 ]);
});

test('status: a stream that begins again forgets what is gone', () => {
	const model = status.make();
	model.replace({ resources: [ resource('container:old', 'waiting', 'Synced') ] });
	model.take({ name: 'status', json: { version: 1, agent: {} } });
	assert.equal(model.take({ name: 'change', json: { id: 2, key: 'agent', agent: {} } }), false);
	model.take({ name: 'synced', json: {} });
	assert.deepEqual(model.resources(), []);
});

test('plan: rows keep the order and say what stops something', () => {
	const made = { operations: [ { op: 'pull', key: 'container:a', cause: 'new' }, { op: 'stop', key: 'container:b', cause: 'gone' } ] };
	assert.deepEqual(plan.rows(made).map(row => row.heavy), [ false, true ]);
	assert.deepEqual(plan.ofSection(made, 'container:b').map(row => row.cause), [ 'gone' ]);
	assert.equal(plan.summary(made), '2 operations pending');
	assert.equal(plan.summary({ operations: [] }), 'nothing to do');
	assert.deepEqual(plan.rows(undefined), []);
	assert.deepEqual([ made, null, { error: {} } ].map(one => plan.isKnown(one)), [ true, false, false ]);

	const left = { operations: [], pending: [
		{ key: 'container:app', state: 'then', level: 'waiting', message: 'once db is healthy', op: 'create' },
		{ key: 'container:web', state: 'retry', level: 'error', message: 'no such image', retry_in: 39.2 },
		{ key: 'container:new', state: 'a later word', level: 'warning', message: '' }
	] };

	assert.deepEqual(plan.rows(left).map(row => [ row.op, row.level ]), [
		[ 'then create', 'waiting' ], [ 'retry in 40 s', 'error' ], [ 'a later word', 'warning' ]
	]);
	assert.equal(plan.summary(left), '2 operations pending, 1 problem');
});

test('log: any split of the text gives the same lines', () => {
	const text = 'one\ntwo\r\n\x1b[31mred\x1b[0m\n10%\r20%\nümlaut\nlast';
	const expected = [ 'one', 'two', 'red', '20%', 'ümlaut', 'last' ];
	for (let size = 1; size <= text.length; size++) {
		const buffer = logs.make();
		for (let at = 0; at < text.length; at += size)
			buffer.push('stdout', text.slice(at, at + size));
		buffer.flush();
		assert.deepEqual(buffer.lines.map(line => line.text), expected);
	}
});

test('log: after a break nothing comes twice and nothing is lost, by the engine\'s own stamps', () => {
	const buffer = logs.make();
	buffer.push('stdout', '2026-11-24T08:00:00.5Z one\n2026-11-24T08:00:01.000000007Z two\n2026-11-24T08:00:02Z thr');
	assert.equal(buffer.last, '1795507201.000000007');
	buffer.resume();
	buffer.push('stdout', '2026-11-24T08:00:01.000000007Z two\n2026-11-24T08:00:02Z three\n2026-11-24T08:00:03Z \n');
	assert.deepEqual(buffer.lines.map(line => line.text), [ 'one', 'two', 'three', '' ]);
	buffer.push('stderr', 'no stamp\n');
	assert.equal(buffer.lines.at(-1).text, 'no stamp');
});

for (const [ name, dirty, cleaned ] of [
	[ 'colours', '\x1b[1;31mx\x1b[0m', 'x' ],
	[ 'a clipboard sequence', 'a\x1b]52;c;ZXZpbA==\x07b', 'ab' ],
	[ 'a title that never ends', 'a\x1b]0;title', 'a' ],
	[ 'a device control string', 'a\x1bP1$tx\x1b\\b', 'ab' ],
	[ 'control characters', 'a\x00\x08\x9bb', 'ab' ],
	[ 'characters that turn the direction', 'a\u202eb\u2066c', 'abc' ],
	[ 'markup stays text', '<img src=x onerror=alert(1)>', '<img src=x onerror=alert(1)>' ]
])
	test(`log: ${name}`, () => assert.equal(logs.clean(dirty), cleaned));

test('log: the buffer is bounded, stdout and stderr do not mix, search ignores case', () => {
	const buffer = logs.make(3);
	buffer.push('stdout', 'half');
	buffer.push('stderr', 'Error one\n');
	buffer.push('stdout', ' line\n1\n2\n3\n');
	assert.deepEqual(buffer.lines.map(line => line.text), [ '1', '2', '3' ]);
	assert.equal(buffer.dropped, 2);
	buffer.push('stderr', 'ERROR two\n');
	assert.deepEqual(buffer.search('error'), [ { source: 'stderr', at: '', text: 'ERROR two' } ]);
	buffer.push('stdout', 'x'.repeat(100000));
	assert.ok(buffer.rest.stdout.length <= 4096);
});

const sample = (second, cpu, system, more = {}) => ({
	read: new Date(1e12 + second * 1000).toISOString(),
	cpu_stats: { cpu_usage: { total_usage: cpu }, system_cpu_usage: system, online_cpus: 2 },
	precpu_stats: {}, memory_stats: { usage: 300, limit: 1000, stats: { inactive_file: 100 } }, ...more
});

test('stats: percent, memory without cache, and rates between two samples', () => {
	const series = stats.make(3);
	series.push(sample(0, 100, 1000, { networks: { a: { rx_bytes: 10, tx_bytes: 0 }, b: { rx_bytes: 5 } } }));
	const second = series.push(sample(2, 150, 1200, {
		networks: { a: { rx_bytes: 30, tx_bytes: 8 }, b: { rx_bytes: 5 } },
		blkio_stats: { io_service_bytes_recursive: [ { op: 'Read', value: 4096 }, { op: 'write', value: 1 } ] }
	}));
	assert.deepEqual([ second.cpu, second.memory, second.rx, second.tx, second.read ], [ 50, 200, 10, 4, 2048 ]);
	series.push(sample(3, 150, 1300));
	series.push(sample(4, 10, 1400));
	assert.equal(series.samples.length, 3);
	assert.equal(series.samples[2].cpu, 0, 'a counter that began anew is no negative load');
	assert.equal(series.highest([ 'cpu' ]), 50);
	assert.equal(series.points('cpu', 100, 10, 100), '0.0,5.0 50.0,10.0 100.0,10.0');
});

test('stats: the newest sample is at the right edge, and the old memory account is known', () => {
	const series = stats.make(3);
	series.push(sample(0, 0, 1, { memory_stats: { usage: 300, stats: { total_inactive_file: 50, inactive_file: 7 } } }));
	assert.equal(series.points('memory', 100, 10, 250), '100.0,0.0');
	assert.equal(series.push({ read: 'nonsense' }).memory, 0);
	assert.equal(series.push(sample(9, 0, 1, { memory_stats: { usage: 100, stats: { inactive_file: 200 } } })).memory, 100);
});

test('format: what the engine says of a file', () => {
	const header = stat => Buffer.from(JSON.stringify({ name: 'é', size: 1536, mtime: '0001-01-01T00:00:00Z', linkTarget: '', ...stat })).toString('base64');

	assert.equal(format.fileStat(header({ mode: 0o644 })), '-rw-r--r--  1.5 KiB  -  é');
	assert.equal(format.fileStat(header({ mode: 2 ** 31 + 0o755 })), 'drwxr-xr-x  -  é');
	assert.equal(format.fileStat(header({ mode: 2 ** 27 + 0o777, linkTarget: '/bin/busybox' })), 'lrwxrwxrwx  -  é -> /bin/busybox');
});

test('format: what is free where a path is', () => {
	const mounts = [ '/', '/mnt/sda1', '/mnt/sda10', '/mnt/sda1/docker/overlay2/x/merged' ].map((mount, place) => ({ mount, avail: place * 1024, size: 4096 }));

	assert.deepEqual([ '/mnt/sda1/docker', '/mnt/sda10', '/opt/docker' ].map(path => format.mountOf(path, mounts).avail), [ 1024, 2048, 0 ]);
	assert.equal(format.mountOf('/opt', []), undefined);
});

test('format: sizes, ages and ids', () => {
	assert.deepEqual([ 0, 1023, 1536, 5 * 1024 ** 3, -1, NaN ].map(format.bytes), [ '0 B', '1023 B', '1.5 KiB', '5.0 GiB', '-', '-' ]);
	assert.deepEqual([ 100, 40, 3000, 0 ].map(span => format.age(1e6 - span, 1e6)), [ '1 min', '40 s', '50 min', '0 s' ]);
	assert.equal(format.age(0, 5), '-');
	assert.equal(format.shortId('sha256:0123456789abcdef'), '0123456789ab');
});

test('dockerd: what happens to containers is said before', () => {
	const { keeps, impact } = load('ucidockd.dockerd', { 'uci': {}, 'ucidockd.calls': {}, 'ucidockd.dom': {} });
	const info = { LiveRestoreEnabled: true, Swarm: { LocalNodeState: 'inactive' } };
	const cases = [
		[ 'stop', info, undefined, false ], [ 'stop', info, '0', false ], [ 'stop', info, 'yes', true ], [ 'restart', info, undefined, true ],
		[ 'restart', info, 'off', false ], [ 'restart', { ...info, Swarm: { LocalNodeState: 'active' } }, undefined, false ], [ 'restart', {}, '1', true ]
	];
	for (const [ action, found, setting, wanted ] of cases)
		assert.equal(keeps(action, found, setting), wanted, `${action} ${setting}`);
	const running = [ { Names: [ '/web' ] }, { Names: [ '/db' ] } ];
	assert.match(impact('stop', false, running).join('\n'), /stays down[^]*containers stop: db, web\. /);
	assert.match(impact('restart', true, running).join('\n'), /keep running[^]*: db, web$/);
	assert.match(impact('stop', true, []).join('\n'), /No container runs/);
});

test('dockerd: one that is not ours to start has a sentence in place of buttons', () => {
	const D = { el: (name, attributes, content) => content, button: (kind, text) => text };
	const { buttons } = load('ucidockd.dockerd', { 'uci': {}, 'ucidockd.calls': {}, 'ucidockd.dom': D });
	assert.equal(buttons(true, null, { starts: false, settings: false, why: 'Docker runs on another machine.' }), 'Docker runs on another machine.');
	assert.ok(buttons(true, null, { starts: true, settings: true, why: '' }).includes('Restart dockerd'));
	assert.equal(buttons(false, null, undefined), 'Start dockerd');
});

test('an image shows its defaults, and of the environment only the names', () => {
	const { factsOf, placeholdersOf } = load('ucidockd.imagefacts');
	const config = {
		Entrypoint: [ '/entry.sh' ], Cmd: [ 'sh', '-c', 'echo it\'s' ], Env: [ 'PATH=/bin', 'TOKEN=geheim=1', 'BARE' ], User: '', WorkingDir: '/srv',
		ExposedPorts: { '80/tcp': {}, '443/tcp': {} }, Volumes: { '/data': {} }, Healthcheck: { Test: [ 'CMD', 'wget', '-q', 'http://localhost/' ] }
	};
	assert.deepEqual(factsOf(config), [
		[ 'Entrypoint', '/entry.sh' ], [ 'Command', 'sh -c \'echo it\'\\\'\'s\'' ], [ 'Working directory', '/srv' ], [ 'Ports', '443/tcp, 80/tcp' ],
		[ 'Volumes', '/data' ], [ 'Environment (names)', 'PATH, TOKEN, BARE' ], [ 'Health check', 'wget -q http://localhost/' ]
	]);
	assert.equal(placeholdersOf(config).workdir, '/srv');
	assert.deepEqual(factsOf({ Env: null, ExposedPorts: null, Healthcheck: { Test: [ 'NONE' ] } }), []);
});

test('tar reads the archive that a page makes', () => {
	const archive = load('ucidockd.tar').make([
		{ name: 'laptop/ca.pem', text: 'wörld\n'.repeat(200), mode: 0o600 }, { name: 'laptop/key.pem', text: '', mode: 0o600 }
	], 1_700_000_000.5);
	const list = spawnSync('tar', [ '--utc', '-tvf', '-' ], { input: archive, encoding: 'utf8' });
	assert.deepEqual(list.stdout.trim().split('\n').map(line => line.replace(/\s+/g, ' ')), [
		'-rw------- 0/0 1400 2023-11-14 22:13 laptop/ca.pem', '-rw------- 0/0 0 2023-11-14 22:13 laptop/key.pem'
	]);
	assert.equal(list.stderr, '');
	assert.equal(spawnSync('tar', [ '-xOf', '-', 'laptop/ca.pem' ], { input: archive, encoding: 'utf8' }).stdout, 'wörld\n'.repeat(200));
	assert.throws(() => load('ucidockd.tar').make([ { name: 'x'.repeat(101), text: '', mode: 0 } ], 0), /100 bytes/);
});

test('graphs: empty samples of a stopped container are told from those of a running one', () => {
	assert.equal(stats.ofRunning({ read: '2026-01-01T10:00:00.5Z' }), true);
	assert.equal(stats.ofRunning({ read: '0001-01-01T00:00:00Z' }), false);
});

// LuCI's own module, as far as sections of one package go
function uciOf(sections) {
	const found = name => sections.find(one => one['.name'] === name);

	return {
		get: (_package, name) => found(name),
		sections: (_package, type) => sections.filter(one => one['.type'] === type),
		add: (_package, type, name) => (sections.push({ '.name': name, '.type': type }), name),
		set: (_package, name, option, value) => { found(name)[option] = value; },
		unset: (_package, name, option) => { delete found(name)[option]; },
		load: async () => {}, save: async () => {}
	};
}

function forwardingsOn(sections, writer = true) {
	const calls = [];
	const uci = uciOf(sections);
	const ui = { changes: { init: async () => calls.push('init'), apply: async checked => calls.push(`apply ${checked}`) } };
	const dom = { button: (kind, text, action) => writer ? { text, action } : null };

	return { calls, module: load('ucidockd.forwardings', { 'uci': uci, 'ui': ui, 'ucidockd.dom': dom, 'ucidockd.calls': {} }) };
}

const OUT = { type: 'NoInternet', status: true, remedy: 'allow-out', details: { src: 'docker', dest: 'wan' } };
const IN = { type: 'PortUnreachable', status: true, remedy: 'allow-in', details: { src: 'lan', dest: 'docker' } };

test('forwardings: a button for each condition that names zones, and for nothing else', () => {
	const { module } = forwardingsOn([]);
	assert.equal(module.button(OUT).text, 'Allow containers to reach wan');
	assert.equal(module.button(IN).text, 'Allow lan to reach containers');
	assert.equal(module.button({ ...OUT, details: undefined }), '');
	assert.equal(module.button({ ...OUT, remedy: undefined }), '');
	assert.equal(module.button({ ...OUT, remedy: 'block-access' }), '');
	assert.equal(forwardingsOn([], false).module.button(OUT), '');
});

test('forwardings: a named section is added, and applied with the way back', async () => {
	const sections = [];
	const { module, calls } = forwardingsOn(sections);
	await module.button(OUT).action();
	assert.deepEqual(sections, [ { '.name': 'docker_wan', '.type': 'forwarding', src: 'docker', dest: 'wan' } ]);
	assert.deepEqual(calls, [ 'init', 'apply true' ]);
});

test('forwardings: one that is off is turned on, and a name that is taken is left alone', async () => {
	const off = { '.name': 'cfg01', '.type': 'forwarding', src: 'docker', dest: 'wan', enabled: '0', family: 'ipv6' };
	const taken = { '.name': 'lan_my_zone', '.type': 'rule' };
	const sections = [ off, taken ];
	const { module } = forwardingsOn(sections);
	await module.allow(OUT.details);
	assert.deepEqual(off, { '.name': 'cfg01', '.type': 'forwarding', src: 'docker', dest: 'wan' });
	await module.allow({ src: 'lan', dest: 'my-zone' });
	assert.deepEqual(sections.slice(1), [ taken, { '.name': 'lan_my_zone_2', '.type': 'forwarding', src: 'lan', dest: 'my-zone' } ]);
});

test('calls: the status is read page for page', async () => {
	const pages = { '': { version: 3, agent: {}, resources: [ 'a', 'b' ], next: 'b' }, b: { resources: [ 'c' ], next: 'c' }, c: { resources: [ 'd' ] } };
	const rpc = { declare: ({ method }) => async after => (method === 'status' ? structuredClone(pages[after ?? '']) : {}) };
	const calls = load('ucidockd.calls', { rpc });

	assert.deepEqual((await calls.agent.status()).resources, [ 'a', 'b', 'c', 'd' ]);
	assert.equal((await calls.agent.status()).version, 3);
});

test('containers: who reaches a port, as the agent says of what runs, else as the section says', () => {
	const list = load('ucidockd.containerlist'), container = { Id: 'c1', Ports: [ { IP: '0.0.0.0', PublicPort: 9000, PrivatePort: 80, Type: 'tcp' }, { PrivatePort: 81, Type: 'tcp' } ] };
	const zonesOf = (owner, reach) => list.portsOf(container, owner, reach).map(port => port.zones);

	assert.deepEqual(zonesOf(undefined, { c1: { '9000/tcp': [ 'lan' ] } }), [ [ 'lan' ], undefined ]);
	assert.deepEqual(zonesOf({ reach: { '9000/tcp': [ 'wan' ] } }, { c1: { '9000/tcp': [] } }), [ [], undefined ]);
	assert.deepEqual(zonesOf({ reach: { '9000/tcp': [ 'wan' ] } }, {}), [ [ 'wan' ], undefined ]);
	assert.deepEqual(zonesOf(undefined, undefined), [ undefined, undefined ]);
});

test('containers: a port at two addresses is two, at all of IPv4 and IPv6 one', () => {
	const list = load('ucidockd.containerlist'), port = (IP, PublicPort) => ({ IP, PublicPort, PrivatePort: 80, Type: 'tcp' });
	const seen = Ports => list.portsOf({ Id: 'c1', Ports }).map(one => [ one.ip, one.host ]);

	assert.deepEqual(seen([ port('127.0.0.1', 8080), port('192.168.1.1', 8080) ]), [ [ '127.0.0.1', 8080 ], [ '192.168.1.1', 8080 ] ]);
	assert.deepEqual(seen([ port('::', 8080), port('0.0.0.0', 8080) ]), [ [ '0.0.0.0', 8080 ] ]);
});

const repeats = load('ucidockd.repeats');

test('repeats: what happens again within ten minutes is one entry', () => {
	const start = at => ({ at, what: 'start', name: 'web', why: 'it ended' }), stop = at => ({ at, what: 'stop', name: 'web', why: '' });

	assert.deepEqual(repeats.group([ start(5000), stop(4990), start(4400), start(3801), start(3200), stop(10) ]).map(({ what, at, count, first }) => [ what, at, count, first ]),
		[ [ 'start', 5000, 3, 3801 ], [ 'stop', 4990, 1, 4990 ], [ 'start', 3200, 1, 3200 ], [ 'stop', 10, 1, 10 ] ]);
	assert.equal(repeats.words({ count: 1, first: 10 }), '');
	assert.match(repeats.words({ count: 3, first: 10 }), /^3 times since /);
});

const listing = load('ucidockd.listing'), tar = load('ucidockd.tar'), rows = load('ucidockd.containerlist');

test('listing: what ls prints, of busybox, GNU and with odd names', () => {
	const text = [
		'total 12',
		'drwxr-xr-x    2 0        0             4096 Jan  1 12:00 conf d',
		'-rw-r--r-- 1 0 0 1234 Mar  3  2024 a  b -> c',
		'lrwxrwxrwx 1 0 0 7 Jan 1 00:00 bin -> usr/bin',
		'crw-rw-rw- 1 0 0 1, 3 Jan 1 00:00 null', '' ].join('\n');
	assert.deepEqual(listing.entriesOf(text).map(({ kind, size, name, target }) => [ kind, size, name, target ]),
		[ [ 'd', null, 'conf d', '' ], [ '-', 1234, 'a  b -> c', '' ], [ 'l', null, 'bin', 'usr/bin' ], [ 'c', null, 'null', '' ] ]);
	assert.deepEqual([ [ '/', 'etc' ], [ '/a/b', '..' ], [ '/', '..' ], [ '/a//', './b' ] ].map(pair => listing.join(...pair)), [ '/etc', '/a', '/', '/a/b' ]);
	assert.deepEqual(listing.crumbs('/a/b'), [ [ '/', '/' ], [ 'a', '/a' ], [ 'b', '/a/b' ] ]);
});

for (const name of [ 'a.txt', 'ü'.repeat(60) + '.txt', 'n'.repeat(240) ])
	test(`tar: a file of any name goes as an archive that tar reads: ${name.length}`, async () => {
		const body = new Blob([ 'x'.repeat(1000) ]);
		const folder = mkdtempSync(`${tmpdir()}/tar-`), path = `${folder}/a.tar`;
		writeFileSync(path, new Uint8Array(await tar.ofFile(name, body, 1700000000).arrayBuffer()));
		assert.equal(execFileSync('tar', [ '--quoting-style=literal', '-tf', path ]).toString(), name + '\n');
		assert.equal(execFileSync('tar', [ '-xOf', path ]).toString(), 'x'.repeat(1000));
	});

const OWNER = { kind: 'container', key: 'container:web', section: 'web', name: 'web', object_id: 'a1', image: 'nginx:1', level: 'ok', verdict: 'Synced', conditions: [ { type: 'Running', status: true, since: 100 }, { type: 'Synced', status: true, label: 'In sync', message: '' } ], operations: [], reach: { '8080/tcp': [ 'lan' ] } };

function containerOf(name, id, more) {
	return { Id: id, Names: [ '/' + name ], Image: 'sha256:' + 'f'.repeat(64), State: 'running', Status: 'Up 3 hours (healthy)', Ports: [], Labels: {}, ...more };
}

test('rows: sections and what only the engine has are one list', () => {
	const waits = { ...OWNER, key: 'container:media', section: 'media', name: 'media', object_id: '', level: 'waiting', verdict: 'Waiting', conditions: [ { type: 'Waiting', status: true, label: 'Waiting', message: 'mount /mnt/sda1 is missing' } ] };
	const ports = [ { IP: '::', PublicPort: 8080, PrivatePort: 80, Type: 'tcp' }, { IP: '0.0.0.0', PublicPort: 8080, PrivatePort: 80, Type: 'tcp' }, { PrivatePort: 443, Type: 'tcp' } ];
	const found = rows.make([
		containerOf('web', 'a1', { Ports: ports }), containerOf('hand', 'b2', { State: 'exited', Status: 'Exited (3) 6 seconds ago', Labels: { 'com.docker.compose.project': 'shop' } }),
		containerOf('web.ucidockd-old', 'c3', { State: 'exited' })
	], [ OWNER, waits ], 100 + 3 * 86400);
	assert.deepEqual(found.map(({ name, image, stack, state }) => [ name, image, stack, state.level, state.words, state.note ]), [
		[ 'media', 'nginx:1', '', 'waiting', 'Waiting', 'mount /mnt/sda1 is missing' ],
		[ 'web', 'nginx:1', '', 'ok', 'Running, healthy, 3 d', '' ],
		[ 'hand', 'f'.repeat(12), 'shop', 'warning', 'Stopped with exit code 3, 6 s', '' ]
	]);
	assert.deepEqual(found[1].ports, [ { ip: '0.0.0.0', host: 8080, inner: 80, type: 'tcp', zones: [ 'lan' ] }, { ip: undefined, host: undefined, inner: 443, type: 'tcp', zones: undefined } ]);
	assert.deepEqual([ '', 'running', 'trouble', 'stopped', 'declared', 'foreign' ].map(kind => found.filter(row => rows.fits(row, '', kind)).map(row => row.name)),
		[ [ 'media', 'web', 'hand' ], [ 'web' ], [ 'media', 'hand' ], [ 'media', 'hand' ], [ 'media', 'web' ], [ 'hand' ] ]);
	assert.deepEqual(found.filter(row => rows.fits(row, 'sda1', '')).map(row => row.name), [ 'media' ]);

	const crashes = { ...OWNER, level: 'error', verdict: 'Degraded', conditions: [
		{ type: 'Degraded', status: true, level: 'error', label: 'Rolled back', message: 'exited with 4' }, { type: 'Running', status: false, level: 'error', label: 'Keeps crashing', message: 'exited with 5' } ] };
	const [ { state } ] = rows.make([ containerOf('web', 'a1', { State: 'restarting' }) ], [ crashes ], 0);
	assert.deepEqual([ state.words, state.note ], [ 'Rolled back', 'exited with 4. Keeps crashing: exited with 5' ]);

	const [ restarting ] = rows.make([ containerOf('web', 'a1', { State: 'restarting', Status: 'Restarting (3) 1 second ago' }) ], [ OWNER ], 0);
	assert.deepEqual([ restarting.state.level, restarting.state.words ], [ 'error', 'Restarting' ]);
});

test('tar: a folder is made by an archive', async () => {
	const folder = mkdtempSync(`${tmpdir()}/tar-`), path = `${folder}/a.tar`;
	writeFileSync(path, new Uint8Array(await tar.ofFolder('new one', 1700000000).arrayBuffer()));
	assert.equal(execFileSync('tar', [ '-tf', path ]).toString(), 'new one/\n');
});

test('an answer that comes after a newer one is not taken', async () => {
	const { inOrder } = load('ucidockd.watch', { 'ucidockd.dom': {}, 'ucidockd.live': {}, 'ucidockd.status': {} });
	const waiting = [], taken = [], look = inOrder(name => new Promise(done => waiting.push(() => done(name))), name => taken.push(name));
	const looks = [ look('slow'), look('quick'), look('last') ];
	waiting[1]();
	await looks[1];
	waiting[0]();
	await looks[0];
	waiting[2]();
	await looks[2];
	assert.deepEqual(taken, [ 'quick', 'last' ]);
});

test('a page looks again when the status says something else of Docker than it shows', () => {
	let take, shown = false, looks = 0;
	const globals = { setTimeout: globalThis.window?.setTimeout };
	globalThis.window = { ...globalThis.window, setTimeout: call => call() };
	const { engine } = load('ucidockd.watch', { 'ucidockd.dom': {}, 'ucidockd.live': { follow: (_kind, _args, call) => {
		take = call;
	} }, 'ucidockd.status': load('ucidockd.status', { 'ucidockd.sentences': {} }) });
	engine(() => shown, () => looks++);
	globalThis.window.setTimeout = globals.setTimeout;
	const say = reachable => take({ name: 'change', json: { id: 1, agent: { engine: { reachable } } } });
	take({ name: 'status', json: { version: 1, agent: { engine: { reachable: true } } } });
	take({ name: 'synced', json: {} });
	say(true);
	assert.equal(looks, 0);
	say(false);
	assert.equal(looks, 1);
	shown = true;
	say(false);
	assert.equal(looks, 1);
	say(true);
	assert.equal(looks, 2);
});

test('the age of a container is in the words of the page, whatever unit Docker counts in', () => {
	const list = load('ucidockd.containerlist', { 'ucidockd.status': status });
	const plain = globalThis._;
	globalThis._ = text => ({ '%d min': '%d Min.', '%d d': '%d Tg.', '%d s': '%d Sek.', '%d h': '%d Std.' }[text] ?? text);
	try {
		const words = text => list.make([ { Id: 'a', Names: [ '/a' ], Image: 'i', State: 'running', Status: text } ], [], 0)[0].state.words;
		assert.deepEqual([ 'Up About a minute', 'Up 5 minutes (healthy)', 'Up 2 weeks', 'Up Less than a second', 'Up 3 months', 'Up About an hour' ].map(words),
			[ 'Running, 1 Min.', 'Running, healthy, 5 Min.', 'Running, 14 Tg.', 'Running, 1 Sek.', 'Running, 90 Tg.', 'Running, 1 Std.' ]);
	} finally {
		globalThis._ = plain;
	}
});

test('a page in a crash loop looks again every two seconds, not while it waits for an answer, and never misses the last event', async () => {
	// a clock of our own: the mock timers of node 18, which Debian 12 has, know no Date
	let now = 0, timers = [];
	const before = globalThis.window, dateNow = Date.now;
	globalThis.window = { setTimeout: (done, ms) => timers.push({ at: now + ms, done }) };
	Date.now = () => now;
	try {
		const { often } = load('ucidockd.watch', { 'ucidockd.dom': {}, 'ucidockd.live': {}, 'ucidockd.status': {} });
		let looks = 0, answer = () => Promise.resolve();
		const soon = often(() => {
			looks++;
			return answer();
		});
		const pass = async span => {
			for (let left = span; left > 0; left -= 50) {
				now += 50;
				const due = timers.filter(({ at }) => at <= now);
				timers = timers.filter(({ at }) => at > now);
				due.forEach(({ done }) => done());
				await new Promise(done => setImmediate(done));
			}
		};
		const storm = async span => {
			for (let left = span; left > 0; left -= 50) {
				soon();
				await pass(50);
			}
		};
		await storm(1900);
		assert.equal(looks, 0, 'it has just been opened');
		await storm(6200);
		assert.equal(looks, 4, 'events all the time do not put it off either');
		await pass(5000);
		assert.equal(looks, 5);
		soon();
		await pass(300);
		assert.equal(looks, 6, 'one event after a quiet time');
		answer = () => new Promise(done => window.setTimeout(done, 10_000));
		await pass(5000);
		await storm(9000);
		assert.equal(looks, 7);
		await pass(20_000);
		assert.equal(looks, 8);
	} finally {
		globalThis.window = before;
		Date.now = dateNow;
	}
});
