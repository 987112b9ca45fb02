// SPDX-License-Identifier: GPL-2.0-or-later
// Samples of `GET /containers/{id}/stats` as numbers over time, and these as the points of a graph. Pure.
'use strict';
'require baseclass';

function total(entries, pick) {
	return (entries ?? []).reduce((sum, entry) => sum + (pick(entry) || 0), 0);
}

function blockBytes(stats, op) {
	return total(stats.blkio_stats?.io_service_bytes_recursive, entry => String(entry.op).toLowerCase() === op ? entry.value : 0);
}

function cpuPercent(now, before) {
	const used = now.cpu_stats?.cpu_usage?.total_usage - before?.cpu_usage?.total_usage;
	const passed = now.cpu_stats?.system_cpu_usage - before?.system_cpu_usage;
	const cpus = now.cpu_stats?.online_cpus || now.cpu_stats?.cpu_usage?.percpu_usage?.length || 1;

	return used >= 0 && passed > 0 ? used / passed * cpus * 100 : 0;
}

// As `docker stats`: without the page cache that the kernel would give up. cgroup v1 has both names, and the one with `total_`
// counts the groups below as well; v2 has the other one only. What does not fit the usage is of another moment.
function memoryUsed(memory) {
	const usage = memory?.usage ?? 0, cache = memory?.stats?.total_inactive_file ?? memory?.stats?.inactive_file ?? 0;

	return cache < usage ? usage - cache : usage;
}

function rate(now, before, seconds) {
	return before !== undefined && seconds > 0 && now >= before ? (now - before) / seconds : 0;
}

const Series = baseclass.extend({
	__init__(limit) {
		this.limit = limit ?? 120;
		this.samples = [];
		this.totals = null;
		this.cpu = null;
	},

	// one item of a `stats` stream
	push(stats) {
		const networks = Object.values(stats.networks ?? {});
		const totals = {
			at: Date.parse(stats.read) / 1000,
			rx: total(networks, one => one.rx_bytes), tx: total(networks, one => one.tx_bytes),
			read: blockBytes(stats, 'read'), write: blockBytes(stats, 'write')
		};
		const passed = this.totals ? totals.at - this.totals.at : 0;
		const before = stats.precpu_stats?.system_cpu_usage ? stats.precpu_stats : this.cpu;
		const sample = {
			at: totals.at, cpu: cpuPercent(stats, before), memory: memoryUsed(stats.memory_stats),
			limit: stats.memory_stats?.limit ?? 0, pids: stats.pids_stats?.current ?? 0
		};

		for (const name of [ 'rx', 'tx', 'read', 'write' ])
			sample[name] = rate(totals[name], this.totals?.[name], passed);

		this.totals = totals;
		this.cpu = stats.cpu_stats;
		this.samples.push(sample);
		this.samples.splice(0, Math.max(0, this.samples.length - this.limit));

		return sample;
	},

	highest(names) {
		return Math.max(0, ...this.samples.flatMap(sample => names.map(name => sample[name])));
	},

	// "x,y x,y ..." of an SVG polyline; the newest sample is at the right edge
	points(name, width, height, top) {
		const step = width / (this.limit - 1);
		const left = width - step * (this.samples.length - 1);

		return this.samples.map((sample, index) => {
			const share = top > 0 ? Math.min(1, sample[name] / top) : 0;

			return (left + index * step).toFixed(1) + ',' + (height - share * height).toFixed(1);
		}).join(' ');
	}
});

// the values of a day as parts of a graph, `points` of an SVG polyline each: nothing is drawn where nothing is known
function partsOf(values, width, height, top) {
	const step = width / Math.max(1, values.length - 1), parts = [];
	let part = null;

	values.forEach((value, index) => {
		if (value === null) {
			part = null;

			return;
		}

		if (!part)
			parts.push(part = []);

		part.push((index * step).toFixed(1) + ',' + (height - (top > 0 ? Math.min(1, value / top) : 0) * height).toFixed(1));
	});

	return parts.map(points => (points.length > 1 ? points : [ ...points, ...points ]).join(' '));
}

return baseclass.extend({
	partsOf,

	// the engine goes on with empty ones, of the year 1, when the container has stopped
	ofRunning: stats => Date.parse(stats.read) > 0,

	make: limit => new Series(limit)
});
