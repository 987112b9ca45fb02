# SPDX-License-Identifier: GPL-2.0-or-later
# As much of OpenWrt's build system as an install recipe of package/ needs; `make packages` runs it.
INCLUDE_DIR:=$(TOPDIR)/include
PKG_BUILD_DIR:=$(WORK)/build
CP:=cp -fpR
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_DATA:=install -m0644
INSTALL_CONF:=install -m0600
