# The recipes of this project. CI runs the same ones.
.DEFAULT_GOAL := help
SHELL := bash

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## build what the tests need: a control plane, rclone, Litestream, MinIO (once)
	@.tools/need go cc cargo openssl
	@.tools/install etcd kubernetes rclone litestream minio

.PHONY: tools-node
tools-node: tools ## get what the one-node cluster needs besides (once)
	@.tools/need curl ip iptables mount nsenter unshare
	@.tools/install container-runtime busybox pause coredns local-path-provisioner

.PHONY: lint-shell
lint-shell: ## read the shell scripts for mistakes
	@PATH=$$(.tools/install --print-path shellcheck) shellcheck -x -P SCRIPTDIR $$(grep -rlE '^#!.*bash' .tools tests/bed)

.PHONY: bench
bench: ## measure against what one would run instead
	@benches/admission
