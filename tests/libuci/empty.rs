// SPDX-License-Identifier: GPL-2.0-or-later
// cargo wants a target.
