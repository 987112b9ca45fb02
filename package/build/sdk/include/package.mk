# SPDX-License-Identifier: GPL-2.0-or-later
# `make names`: the packages of the Makefile; `make install-NAME`: the files of one below $(DESTINATION), and its scripts in
# $(WORK)/scripts; `make about-NAME`: what it says of itself, one KEY=VALUE a line
SCRIPTS:=preinst postinst prerm

# a script reaches the shell as rules.mk does it: as the value of a variable, expanded once
define Exported
export SCRIPT_$(2)=$$(call Package/$(1)/$(2))
endef

define BuildPackage
$(foreach each,SECTION TITLE DEPENDS CONFLICTS,$(eval $(each):=))
$(eval $(call Package/$(1)))
PACKAGES+=$(1)
$(foreach script,$(SCRIPTS),$(if $(value Package/$(1)/$(script)),$(eval $(call Exported,$(1),$(script)))))
.PHONY: install-$(1) about-$(1)
install-$(1):
	$$(call Build/Prepare)
	$$(call Build/Compile)
	$(call Package/$(1)/install,$$(DESTINATION))
	mkdir -p $$(WORK)/scripts
	$(foreach script,$(SCRIPTS),$(if $(value Package/$(1)/$(script)),\
		printf '%s\n' "$$$$SCRIPT_$(script)" >$$(WORK)/scripts/$(script);))
about-$(1):
	@printf '%s\n' 'title=$(TITLE)' 'depends=$(DEPENDS)' 'conflicts=$(CONFLICTS)' 'version=$$(PKG_VERSION)' \
		'release=$$(PKG_RELEASE)' 'license=$$(PKG_LICENSE)' 'maintainer=$$(PKG_MAINTAINER)' 'section=$(SECTION)' \
		'conffiles=$$(strip $$(Package/$(1)/conffiles))'
endef

.PHONY: names
names:
	@echo $(PACKAGES)
