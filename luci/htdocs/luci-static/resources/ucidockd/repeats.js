// SPDX-License-Identifier: GPL-2.0-or-later
// What happened again and again, such as the starts of a container that keeps ending, as one entry each. Pure.
'use strict';
'require baseclass';
'require ucidockd.format as format';

const GAP_S = 600; // twice the longest pause between two tries

return baseclass.extend({
	// `entries`: newest first, with `at` in seconds; gives them with `count` and `first`, the oldest `at` of a run of equal ones
	group(entries) {
		const runs = new Map(), found = [];

		for (const entry of entries) {
			const sign = JSON.stringify({ ...entry, at: 0 }), run = runs.get(sign);

			if (run && run.first - entry.at <= GAP_S) {
				run.count++;
				run.first = entry.at;
			} else {
				const begun = { ...entry, count: 1, first: entry.at };

				runs.set(sign, begun);
				found.push(begun);
			}
		}

		return found;
	},

	// "14 times since ...", "" of what happened once
	words: ({ count, first }) => count > 1 ? N_(count, '%d time since %s', '%d times since %s').format(count, format.time(first)) : ''
});
