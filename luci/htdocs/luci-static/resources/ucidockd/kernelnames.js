// SPDX-License-Identifier: GPL-2.0-or-later
// Names of the kernel and of the engine that options hold, as the agent checks them (agent/model/kernel_names.py). Pure.
'use strict';
'require baseclass';

const words = text => new Set(text.split(' '));
const SIGNALS = words('ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM ' +
	'TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX');
const CAPABILITIES = words('AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE ' +
	'DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN ' +
	'NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT ' +
	'SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM');
const ULIMITS = words('core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack');
const SYSCTLS = words('kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni ' +
	'kernel.shm_rmid_forced kernel.domainname');
const SIGNAL_MAX = 127;
const BOOLEAN = /^(?:1|t|T|true|TRUE|True|0|f|F|false|FALSE|False)$/;

function isSignal(text) {
	const name = text.toUpperCase().replace(/^SIG/, '');
	const real = /^RT(MIN\+|MAX-)(\d+)$/.exec(name);

	if (/^\d+$/.test(text))
		return +text > 0 && +text <= SIGNAL_MAX;

	if (real)
		return (/^[1-9]/).test(real[2]) && +real[2] <= (real[1] === 'MIN+' ? 15 : 14);

	return SIGNALS.has(name);
}

function isCapability(text) {
	const name = text.toUpperCase();

	return name === 'ALL' || CAPABILITIES.has(name.replace(/^CAP_/, ''));
}

// with dots: where a slash comes first, slashes are dots and dots slashes
function dotted(name) {
	const slash = name.indexOf('/'), dot = name.indexOf('.');

	if (slash < 0 || (dot >= 0 && dot < slash))
		return name;

	return name.replace(/[./]/g, letter => letter === '.' ? '/' : '.');
}

function isSysctl(name) {
	const found = dotted(name);

	return (/^net\.[A-Za-z0-9_./:@+-]*$/).test(found) || found.startsWith('fs.mqueue.') || SYSCTLS.has(found);
}

function isSecurityOption(text) {
	const at = text.includes('=') ? text.indexOf('=') : text.indexOf(':');
	const name = text.slice(0, at), value = text.slice(at + 1);

	if (text === 'no-new-privileges')
		return true;

	if (at < 0 || value === '')
		return false;

	switch (name) {
	case 'apparmor':
		return true;
	case 'no-new-privileges':
	case 'writable-cgroups':
		return BOOLEAN.test(value);
	case 'systempaths':
		return value === 'unconfined';
	case 'label':
		return (/^(?:disable|nested|(?:user|role|type|level|filetype):)/).test(value);
	case 'seccomp':
		return (/^(?:[/{]|unconfined$|builtin$)/).test(value);
	default:
		return false;
	}
}

return baseclass.extend({ isSignal, isCapability, isSysctl, isSecurityOption, isLimit: name => ULIMITS.has(name) });
