// SPDX-License-Identifier: GPL-2.0-or-later
// What pages with lists of Docker's share: they look again when Docker went away or came back, and an old answer never
// replaces a newer one.
'use strict';
'require baseclass';
'require ucidockd.dom as D';
'require ucidockd.live as live';
'require ucidockd.status as status';

const LATER_MS = 2000; // the page comes first
const QUIET_MS = 300, EVERY_MS = 2000; // one change is several events, and a crash loop never ends

let silence = '';

return baseclass.extend({
	// what Docker lists; null where no list comes, and `silence()` says why: Docker, the agent or the router does not answer
	async list(call) {
		try {
			return await call;
		} catch (error) {
			silence = error.status ? _('Docker does not answer.') : D.wordsOf(error); // how it was lost, the Overview says

			return null;
		}
	},

	silence: () => silence,

	// `again()` is called when the status says something else than `isAway()`, what the page shows
	engine(isAway, again) {
		const model = status.make();

		window.setTimeout(() => live.follow('status', {}, item => {
			if (model.take(item) && (model.agent.engine?.reachable === false) !== isAway())
				again();
		}), LATER_MS);
	},

	// whether what happened on the engine may change the page of a container
	isOurEvent({ container, name: ours }, { Actor: actor }) {
		const { name, oldName } = actor?.Attributes ?? {};

		return actor?.ID === container?.Id || [ name, oldName?.replace(/^\//, '') ].includes(ours);
	},

	// whether a change of the status may: of another section it does not, of the agent only that Docker went or came
	isOurChange({ owner, container, name }, isAway, { agent, key, resource }) {
		if (agent)
			return (agent.engine?.reachable === false) !== isAway;

		return key === owner?.key || (resource?.kind === 'container' && (resource.name === name || resource.object_id === container?.Id));
	},

	// Gives what asks for `again()`, which the page has just done by itself: soon, but not twice at a time, nor all the time.
	often(again) {
		let free = Date.now() + EVERY_MS, isWanted = false, isRunning = false;

		return async () => {
			isWanted = true;

			if (isRunning)
				return;

			isRunning = true;

			try {
				for (; isWanted; free = Date.now() + EVERY_MS) {
					await new Promise(done => window.setTimeout(done, Math.max(QUIET_MS, free - Date.now())));
					isWanted = false;
					await again();
				}
			} finally {
				isRunning = false;
			}
		};
	},

	// Loads and hands over. An engine that is ending answers late: its answer comes after the one that it does not answer.
	inOrder(load, take) {
		let asked = 0, taken = 0;

		return async (...given) => {
			const turn = ++asked, found = await load(...given);

			if (turn > taken) {
				taken = turn;
				await take(found);
			}
		};
	}
});
