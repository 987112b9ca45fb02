// SPDX-License-Identifier: GPL-2.0-or-later
// Clears away what nobody uses: a job of the agent, which leaves alone what sections declare.
'use strict';
'require baseclass';
'require ucidockd.calls as calls';
'require ucidockd.dom as D';
'require ucidockd.jobs as jobs';

return baseclass.extend({
	// `what`: containers, networks or volumes; `done` is called when it has ended
	button(what, label, consequence, done) {
		return D.button('negative', label, () => D.ask(label, [ consequence, _('What ucidockd manages stays.') ], label, async () => {
			const job = await jobs.finished(await calls.agent.job_start({ kind: 'prune', what }));

			if (job.state !== 'succeeded')
				throw new Error(jobs.words(job));

			D.notify('info', jobs.words(job));
			await done();
		}, 'negative'));
	}
});
