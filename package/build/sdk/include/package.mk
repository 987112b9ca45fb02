# SPDX-License-Identifier: GPL-2.0-or-later
# `make install-NAME`: the files of the package below $(DESTINATION); `make about-NAME`: what it says of itself, one JSON a line
define BuildPackage
$(call Package/$(1))
.PHONY: install-$(1) about-$(1)
install-$(1):
	$$(call Build/Prepare)
	$$(call Build/Compile)
	$(call Package/$(1)/install,$$(DESTINATION))
about-$(1):
	@printf '%s\n' 'title=$$(TITLE)' 'depends=$$(DEPENDS)' 'conflicts=$$(CONFLICTS)' 'version=$$(PKG_VERSION)' \
		'release=$$(PKG_RELEASE)' 'license=$$(PKG_LICENSE)' 'maintainer=$$(PKG_MAINTAINER)' 'section=$$(SECTION)' \
		'conffiles=$$(strip $$(Package/$(1)/conffiles))'
endef
