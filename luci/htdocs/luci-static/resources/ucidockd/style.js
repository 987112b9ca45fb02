// SPDX-License-Identifier: GPL-2.0-or-later
// How the pages look where themes do not say so. Pure.
'use strict';
'require baseclass';

// What themes do not have. Colours of texts are readable (4.5 to 1) on light and on dark ones.
const STYLE = [
	'.ucidockd-bar { display: flex; flex-wrap: wrap; gap: .4em; align-items: center; margin: .6em 0 }',
	'.ucidockd-bar input[type=text], .ucidockd-bar select { width: auto; max-width: 100% }',
	'.ucidockd-labelled { display: inline-flex; gap: .4em; align-items: center; width: auto; max-width: 100% }', '.ucidockd-labelled > * { min-width: 0 }',
	'.ucidockd-menu { display: inline-block; position: relative }',
	'.ucidockd-menu > summary { list-style: none; cursor: pointer }',
	'.ucidockd-menu > summary::-webkit-details-marker { display: none }',
	'.ucidockd-menu > div { position: absolute; right: 0; z-index: 20; display: flex; flex-direction: column; width: max-content; min-width: 11em; max-width: min(30em, 90vw); padding: .3em; gap: .2em; background: var(--background-color-high, Canvas); border: 1px solid var(--border-color-medium, GrayText); border-radius: 4px; box-shadow: 0 2px 8px rgba(0,0,0,.3) }',
	'.ucidockd-menu > div > * { text-align: left; white-space: normal; overflow-wrap: anywhere; margin: 0 }',
	'.ucidockd-problem { border-left: 4px solid #1a66b3; padding: .3em .8em; margin: .8em 0 }', '.ucidockd-error { border-color: #b03a37 }', '.ucidockd-warning { border-color: #f0b429 }',
	'.ucidockd-problem pre { max-height: 9em; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; display: flex; flex-direction: column-reverse }', // its end is what is seen
	'.ucidockd-meters { display: grid; grid-template-columns: repeat(auto-fit, minmax(15em, 1fr)); gap: .2em 1.5em }',
	'.ucidockd-text a { text-decoration: underline }', // beside words, where colour alone does not tell
	'.ucidockd-any { overflow-wrap: anywhere }', '#view small:not(.ucidockd-wrong, [class*=ucidockd-c]), .modal small { color: inherit }', '.ucidockd-quiet { opacity: .8 }',
	'.ucidockd-wrong, .ucidockd-c4 { color: #b02a2a }', '.ucidockd-c0 { color: #1a66b3 }', '.ucidockd-c1 { color: #8a5200 }', '.ucidockd-c2 { color: #1f7042 }', '.ucidockd-c3 { color: #8e3b90 }',
	'[data-darkmode=true] .ucidockd-wrong, [data-darkmode=true] .ucidockd-c4 { color: #ff8a7a }', '[data-darkmode=true] .ucidockd-c0 { color: #6db3f2 }', '[data-darkmode=true] .ucidockd-c1 { color: #f0a868 }', '[data-darkmode=true] .ucidockd-c2 { color: #6fcf97 }', '[data-darkmode=true] .ucidockd-c3 { color: #dca6dd }',
	'.modal h4 { overflow-wrap: anywhere }', '.modal input:not([type=checkbox]), .modal select, .modal textarea { max-width: 100% }',
	'.ucidockd-group { text-align: left; padding-top: 1.2em }',
	'.ucidockd-notices { position: sticky; top: 4em; z-index: 30; max-height: 60vh; overflow: auto }', // below a head that stays
	'.ucidockd-log { height: 50vh; overflow: auto; margin: .4em 0 }',
	'.ucidockd-wrap { white-space: pre-wrap; overflow-wrap: anywhere }', '.ucidockd-log:empty::before { content: attr(data-empty); opacity: .8 }',
	'.ucidockd-rest { display: contents }', 'button.ucidockd-narrow { display: none }',
	'.ucidockd-actions { white-space: nowrap; text-align: right }',
	'.ucidockd-state { min-width: 12em }', '.ucidockd-name { min-width: 8em }', '@media (min-width: 601px) { .ucidockd-tick + .td { min-width: 9em } }', // beside what is longer
	'@media (max-width: 600px) { .ucidockd-list .td:empty { display: none } .ucidockd-list .td.ucidockd-tick { flex: 0 0 2em } .ucidockd-tick + .td { flex: 1 1 calc(100% - 2em) } .ucidockd-list .td:has(> .ucidockd-actions), .ucidockd-list .td:has(> .ucidockd-state) { flex-basis: 100% } .ucidockd-tick + .td::before, .td:has(> .ucidockd-state)::before { display: none }' +
		'.ucidockd-actions { white-space: normal; text-align: left } .ucidockd-menu[open] { display: block; width: 100% } .ucidockd-menu > div { position: static; max-width: none } button.ucidockd-narrow { display: inline-block } .ucidockd-rest:not(.ucidockd-open) { display: none } }'
].join('\n');
// background and text of badges: themes differ in them, and not all can be read
const BADGES = { ok: '#1f7a3d;color:#fff', waiting: '#1a66b3;color:#fff', warning: '#f0b429;color:#222', error: '#b03a37;color:#fff', off: '#dcdcdc;color:#222' };

return baseclass.extend({ sheet: STYLE, badges: BADGES });
