# Targets for developers; `make help` lists them.  Each installs what it needs; a second run finds it installed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEED := .ci/need
# With it each worker of the tests, and each command that they start, would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

MANUALS := $(notdir $(basename $(wildcard docs/man/*.md))) binfmtd-log.7 binfmtd-metrics.7

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit kernel kernel-quick kernel-slow reliability chaos fuzz test-formats test-containers test-docker test-cluster test-systemd test-hosts test-emulators test-browser test-security kernels bench picture screenshots \
    test-deb-arm64 test-packages test-reproducible test-multi-arch lint-ansible sbom man docs deep-programs completions sdist deb rpm one-file install uninstall setup tools test-tools clean
.SUFFIXES:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## the main job, on a private instance of binfmt_misc: register, run, remove, repair
	@$(BIN)/binfmtd sandbox --log-level error -- $(BIN)/python tests/demo.py

picture: setup ## draw docs/repair.svg, the session of the README, from a real terminal
	$(BIN)/python tests/picture.py

NOT_TESTED := build/not-tested
test: export BINFMTD_NOT_TESTED := $(NOT_TESTED)
test: test-tools ## all checks required before a commit: lint, unit tests with the coverage gate, quick kernel tests; three minutes
	@$(MAKE) --no-print-directory lint unit kernel-quick; status=$$?; \
	    if [ -s $(NOT_TESTED) ]; then echo "not tested, by number and reason:"; sort $(NOT_TESTED) | uniq -c | sort -rn; \
	    elif [ $$status = 0 ]; then echo "nothing was left out"; fi; \
	    exit $$status

# Programs without which some tests are skipped: if they cannot be installed, `make test` lists those tests at its end.
test-tools:
	@mkdir -p $(dir $(NOT_TESTED)) && rm -f $(NOT_TESTED)
	-@$(NEED) promtool 'command -v promtool' zsh 'command -v zsh' fish 'command -v fish' \
	    busybox 'command -v busybox' uidmap 'command -v newuidmap'

lint: setup ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/lint-imports

PURE := tests/unit/model tests/unit/catalog tests/unit/formats
unit: setup ## the unit tests, and the coverage gate on the pure modules
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --dist worksteal $(PURE)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/python -m pytest -n auto --dist worksteal tests/unit $(PURE:%=--ignore=%)

kernel: SELECTED := not debian and not reliability
kernel-quick: SELECTED := not debian and not reliability and not slow
kernel-slow: SELECTED := slow
kernel: setup ## the tests on the real kernel, in private instances of binfmt_misc; two per core in parallel
kernel-quick: setup ## the kernel tests that `make test` runs
kernel-slow: setup ## the slow kernel tests, which `make test` leaves out
kernel kernel-quick kernel-slow:
	@# Each test starts processes, and all of them would compile at once.
	@$(BIN)/python -m compileall -q binfmtd
	$(BIN)/python -m pytest -n $$(( 2 * $$(nproc) )) --dist worksteal -m '$(SELECTED)' tests/kernel

SHARE := 1
reliability: setup ## the reliability suite: as many disturbances as a build farm has in a year (CI does 2 % of it, SHARE=0.02)
	$(BIN)/python -m pytest -n auto --dist worksteal -m '' --share $(SHARE) tests/kernel/reliability

SEED := random
STEPS := 10000
chaos: setup ## 10,000 random actions, and `explain` compared with the kernel; SEED=number STEPS=number repeats a run
	$(BIN)/python -m pytest -s --seed $(SEED) --steps $(STEPS) --share 1 tests/kernel/reliability/test_chaos.py \
	    tests/kernel/test_explain_oracle.py

SECONDS := 60
fuzz: setup ## fuzz each parser with atheris for SECONDS=60; skipped if atheris cannot be installed
	@$(BIN)/python -m pip install --quiet --editable '.[fuzz]' || { \
	    echo "make: skipped: there is no atheris for $$($(BIN)/python --version) on this machine (above is pip's reason)"; \
	    exit 0; }; \
	$(BIN)/python tests/fuzz/run.py $(SECONDS)

test-formats: setup ## every file of Debian's packages imported, update-binfmts reads our export; needs apt
	$(BIN)/python -m pytest -m debian tests/kernel

test-containers: setup $(VENV)/.stamp-containers ## build the images with podman, and run them; needs root
	@$(NEED) podman 'command -v podman' catatonit 'command -v catatonit || test -x /usr/libexec/podman/catatonit' \
	    crun 'command -v crun' runc 'command -v runc' mmdebstrap 'command -v mmdebstrap' shellcheck 'command -v shellcheck' \
	    debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*' docker-registry 'command -v docker-registry' \
	    openssl 'command -v openssl' cosign 'command -v cosign' skopeo 'command -v skopeo' \
	    docker-cli 'command -v docker' docker-buildx 'docker buildx version'
	$(BIN)/python -m pytest --ignore=$(REPRODUCIBLE_PODMAN) tests/container

$(VENV)/.stamp-containers: $(VENV)/.stamp
	@$(BIN)/python -m pip install --quiet --editable '.[container]'
	@touch $@

ENGINE := podman
IMAGE := binfmtd
REPRODUCIBLE_PODMAN := tests/container/test_reproducible.py
REPRODUCIBLE_DOCKER := tests/docker/test_reproducible.py
test-reproducible: setup $(VENV)/.stamp-containers ## build images twice, with podman and with Docker Engine, and compare them; CI leaves it out; needs root
	$(BIN)/python -m pytest -m '' $(REPRODUCIBLE_PODMAN) $(REPRODUCIBLE_DOCKER)

LIST := build/sbom/$(subst :,-,$(subst /,-,$(IMAGE))).cdx.json
sbom: setup $(VENV)/.stamp-sbom ## list the packages in an image as CycloneDX JSON, in build/sbom; IMAGE=name ENGINE=podman or docker
	@mkdir -p $(dir $(LIST))
	container=$$($(ENGINE) create $(IMAGE)) || exit; \
	    $(ENGINE) export $$container | PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python packaging/image/sbom.py $(IMAGE) $(VERSION) >$(LIST); \
	    status=$$?; $(ENGINE) rm $$container >/dev/null; exit $$status

$(VENV)/.stamp-sbom: $(VENV)/.stamp
	@$(BIN)/python -m pip install --quiet --editable '.[sbom]'
	@touch $@

MULTI_ARCH := tests/docker/test_multi_arch.py
DOCKER_NEEDS = docker.io 'command -v dockerd' docker-cli 'command -v docker' docker-buildx 'docker buildx version' \
    docker-compose 'docker compose version' docker-registry 'command -v docker-registry' iptables 'command -v iptables' \
    slirp4netns 'command -v slirp4netns' gcc-riscv64-linux-gnu 'command -v riscv64-linux-gnu-gcc' \
    libc6-dev-riscv64-cross 'test -e /usr/riscv64-linux-gnu/include/stdio.h' mmdebstrap 'command -v mmdebstrap' \
    debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*'
test-docker: setup ## run the images with a real Docker Engine, which has networks, files and binfmt_misc of its own; needs root
	@$(NEED) $(DOCKER_NEEDS)
	$(BIN)/python -m pytest -m '' --ignore=$(REPRODUCIBLE_DOCKER) --ignore=$(MULTI_ARCH) tests/docker

test-multi-arch: setup ## build the images for amd64, and for arm64 in our own emulator, and run them with Docker Engine; CI leaves it out; needs root
	@$(NEED) $(DOCKER_NEEDS) skopeo 'command -v skopeo'
	$(BIN)/python -m pytest -m '' $(MULTI_ARCH)

test-cluster: setup $(VENV)/.stamp-containers ## test the DaemonSet and the Helm chart on a real Kubernetes 1.20 node, which is built once (7 minutes); 30 minutes, needs root
	@$(NEED) docker.io 'command -v dockerd' docker-cli 'command -v docker' docker-buildx 'docker buildx version' \
	    containerd 'command -v containerd' runc 'command -v runc' iptables 'command -v iptables' \
	    slirp4netns 'command -v slirp4netns' golang-go 'command -v go' dpkg-dev 'command -v dpkg-source' \
	    docker-registry 'command -v docker-registry' openssl 'command -v openssl' procps 'command -v pgrep' \
	    gcc-riscv64-linux-gnu 'command -v riscv64-linux-gnu-gcc' \
	    libc6-dev-riscv64-cross 'test -e /usr/riscv64-linux-gnu/include/stdio.h' mmdebstrap 'command -v mmdebstrap' \
	    debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*'
	$(BIN)/python -m pytest -m '' tests/cluster

test-systemd: setup man completions ## test the unit in a Debian with real systemd, booted by systemd-nspawn; needs root
	@$(NEED) systemd-container 'command -v systemd-nspawn' mmdebstrap 'command -v mmdebstrap' dpkg 'command -v dpkg-deb' \
	    debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*'
	$(BIN)/python -m pytest -n auto --dist loadfile tests/systemd

test-hosts: setup ## test old and odd hosts: Debian 12, WSL, rootless podman and BuildKit, LXC, Incus, nesting, /proc, musl; four minutes, needs root
	@$(NEED) systemd-container 'command -v systemd-nspawn' mmdebstrap 'command -v mmdebstrap' dpkg 'command -v dpkg-deb' \
	    debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*' \
	    podman 'command -v podman' catatonit 'command -v catatonit || test -x /usr/libexec/podman/catatonit' \
	    crun 'command -v crun' uidmap 'command -v newuidmap' docker.io 'command -v dockerd' docker-cli 'command -v docker' \
	    docker-buildx 'docker buildx version' rootlesskit 'command -v rootlesskit' slirp4netns 'command -v slirp4netns' \
	    iptables 'command -v iptables' gcc-aarch64-linux-gnu 'command -v aarch64-linux-gnu-gcc' lxc 'command -v lxc-start'
	$(BIN)/python -m pytest tests/hosts

test-emulators: setup ## test the store of emulators with a real registry, archives and Debian's packages; three minutes, needs apt
	@$(NEED) skopeo 'command -v skopeo' docker-registry 'command -v docker-registry' dpkg 'command -v dpkg-deb' \
	    zstd 'command -v zstd' openssl 'command -v openssl' debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*' \
	    gcc 'command -v cc' gcc-aarch64-linux-gnu 'command -v aarch64-linux-gnu-gcc'
	-@$(NEED) clang-19 'command -v clang-19' lld-19 'command -v ld.lld-19' # only Debian 13 has these
	$(BIN)/python -m pytest tests/emulators tests/unit/test_deep_programs.py

test-packages: setup man completions ## test the packages: RPM on an empty tree and on a booted Debian, the one file on a Debian 12 without Python, the service under OpenRC, the recipes; needs apt, and root
	@$(NEED) rpm 'command -v rpmbuild' rpmlint 'command -v rpmlint' systemd-container 'command -v systemd-nspawn' \
	    mmdebstrap 'command -v mmdebstrap' dpkg 'command -v dpkg-deb' nix-bin 'command -v nix-instantiate' \
	    debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*'
	$(BIN)/python -m pytest -n auto --dist loadfile tests/packages

ANSIBLE := build/ansible
lint-ansible: $(ANSIBLE)/.stamp ## check the Ansible role with ansible-lint, by the rules of its profile production
	cd packaging/ansible && $(CURDIR)/$(ANSIBLE)/venv/bin/ansible-lint --offline --strict --profile production roles/binfmtd

# In a virtual environment of its own: it brings 32 packages.
$(ANSIBLE)/.stamp:
	@$(PYTHON) -m venv $(ANSIBLE)/venv
	@$(ANSIBLE)/venv/bin/pip install --quiet 'ansible-lint>=25'
	@touch $@

test-browser: setup $(VENV)/.stamp-browser ## test the status page of a real daemon, and the web site, in a headless Chromium
	@$(NEED) chromium 'command -v chromium' chromium-driver 'command -v chromedriver'
	-@$(MAKE) --no-print-directory $(MKDOCS)/.stamp # without it the tests of the site are skipped
	$(BIN)/python -m pytest -m '' tests/kernel/test_page.py tests/site

screenshots: setup $(VENV)/.stamp-browser ## take the screenshots of docs/metrics.md with a headless Chromium
	@$(NEED) chromium 'command -v chromium' chromium-driver 'command -v chromedriver'
	$(BIN)/python tests/screenshots.py

$(VENV)/.stamp-browser: $(VENV)/.stamp
	@$(BIN)/python -m pip install --quiet --editable '.[browser]'
	@touch $@

# The programs that all virtual machines require.
define need-machines
	@$(NEED) qemu-system-x86 'command -v qemu-system-x86_64' seabios 'test -e /usr/share/seabios/bios-256k.bin' \
	    mmdebstrap 'command -v mmdebstrap' e2fsprogs 'command -v mke2fs || test -x /usr/sbin/mke2fs' \
	    debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*'
endef

test-security: setup ## the daemon under AppArmor and under SELinux, enforcing, in two emulated machines; twenty minutes
	$(need-machines)
	@PATH="$$PATH:/usr/sbin" PYTHONPATH=tests $(BIN)/python -m kernels apparmor selinux

test-deb-arm64: setup deb ## the Debian package in an emulated arm64 machine: install, use, remove and purge it
	@$(NEED) qemu-system-arm 'command -v qemu-system-aarch64'
	$(need-machines)
	@PATH="$$PATH:/usr/sbin" PYTHONPATH=tests $(BIN)/python -m kernels arm64 -- -n0 tests/packages/test_deb_arm64.py

KERNELS :=
kernels: setup ## the kernel suite on Linux 5.10, 6.1, 6.12 and 7.2, each in an emulated machine; KERNELS=6.1 for one, arm64, arm64-16k and s390x for others
	@$(if $(filter arm64%,$(KERNELS)),$(NEED) qemu-system-arm 'command -v qemu-system-aarch64')
	@$(if $(filter s390x,$(KERNELS)),$(NEED) qemu-system-s390x 'command -v qemu-system-s390x')
	$(need-machines)
	@PATH="$$PATH:/usr/sbin" PYTHONPATH=tests $(BIN)/python -m kernels $(KERNELS)

SCALE := 1
PARTS :=
BENCH := build/bench
bench: setup $(BENCH)/venv/.stamp ## compare with the peers, and update docs/benchmarks.md, its plots and the README; some hours, on an idle machine
	@$(NEED) gcc 'command -v cc' libc6-dev 'test -e /usr/include/stdio.h' systemd 'test -x /usr/lib/systemd/systemd-binfmt'
	@env -u PYTHONDONTWRITEBYTECODE PYTHONPATH=tests $(BIN)/python -P -m benchmarks --scale $(SCALE) $(PARTS:%=--parts %)

# As a user installs it: without our tools, which pydantic would search for plugins.
$(BENCH)/venv/.stamp: pyproject.toml $(shell find binfmtd -name '*.py')
	@test -x $(BENCH)/venv/bin/pip || $(PYTHON) -m venv $(BENCH)/venv
	@$(BENCH)/venv/bin/pip install --quiet --upgrade ".[metrics]" && $(BENCH)/venv/bin/pip install --quiet --no-deps --force-reinstall .
	@$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

man: $(MANUALS:%=build/man/%) ## the manual pages, in build/man

build/man/%: docs/man/%.md
	@$(NEED) go-md2man 'command -v go-md2man'
	@mkdir -p $(@D)
	awk -f docs/man/tables.awk $< | go-md2man -out $@

# Two pages of docs/ are manual pages as well, with the title and NAME that man(1) and apropos(1) require.
build/man/binfmtd-log.7: docs/logging.md
	$(call titled,binfmtd-log,what the daemon logs)
build/man/binfmtd-metrics.7: docs/metrics.md
	$(call titled,binfmtd-metrics,what the daemon tells Prometheus)

define titled
	@$(NEED) go-md2man 'command -v go-md2man'
	@mkdir -p $(@D)
	{ printf '# $(1) 7 "" "binfmtd" "Miscellaneous Information Manual"\n\n## NAME\n$(1) - $(2)\n\n## DESCRIPTION\n'; \
	    sed 1d $< | awk -f docs/man/tables.awk; } | go-md2man -out $@
endef

MKDOCS := build/mkdocs
docs: $(MKDOCS)/.stamp ## the documents as a web site with a search, in build/site: it needs no server and no network
	@# The variable leaves out a notice of the theme, which packaging/site/requirements.txt has.
	@NO_MKDOCS_2_WARNING=1 $(MKDOCS)/bin/mkdocs build --config-file packaging/site/mkdocs.yml

$(MKDOCS)/.stamp: packaging/site/requirements.txt
	@$(NEED) python3 'command -v $(PYTHON)' python3-venv '$(PYTHON) -c "import ensurepip"'
	@test -x $(MKDOCS)/bin/pip || $(PYTHON) -m venv $(MKDOCS)
	@$(MKDOCS)/bin/pip install --quiet --requirement $<
	@touch $@

deep-programs: ## compile the programs of `binfmtd probe --deep` anew, with the compiler of Debian 13
	@$(NEED) clang-19 'command -v clang-19' lld-19 'command -v ld.lld-19'
	$(PYTHON) binfmtd/host/deep_programs/source/build.py

completions: setup ## shell completions for bash, zsh and fish, in build/completions
	@mkdir -p build/completions
	$(call complete,bash,binfmtd)
	$(call complete,zsh,_binfmtd)
	$(call complete,fish,binfmtd.fish)

# By rename, since another make may install them at the same time.
complete = $(BIN)/python docs/completions.py $(1) >build/completions/.$(2) && mv build/completions/.$(2) build/completions/$(2)

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' binfmtd/__init__.py)
SDIST := build/dist/binfmtd-$(VERSION).tar.gz

sdist: setup man completions ## the source archive, with built manual pages and completions: it installs without development tools
	@rm -f $(SDIST)
	$(BIN)/python -m hatchling build --target sdist --directory $(dir $(SDIST))

deb: sdist ## the Debian package, in build/deb, checked by lintian
	@$(NEED) dpkg-dev 'command -v dpkg-buildpackage' debhelper 'command -v dh' dh-python 'command -v dh_python3' \
	    lintian 'command -v lintian'
	@rm -rf build/deb && mkdir -p build/deb
	tar --extract --file=$(SDIST) --directory=build/deb
	cd build/deb/binfmtd-$(VERSION) && dpkg-buildpackage --no-sign
	lintian --pedantic --fail-on error,warning,info,pedantic build/deb/binfmtd_$(VERSION)_*.changes
	@echo "make: lintian found nothing in build/deb/binfmtd_$(VERSION)_all.deb"

one-file: setup ## one program with Python in it, build/onefile/binfmtd, for hosts whose Python is older than 3.11 or missing
	@$(NEED) mmdebstrap 'command -v mmdebstrap' debian-archive-keyring 'ls /usr/share/keyrings/debian-archive-keyring.*'
	@$(BIN)/python packaging/onefile/make.py

# Where rpmbuild sees no installed packages, it cannot check what the build requires.
RPMBUILD := rpmbuild $(if $(wildcard /etc/debian_version),--nodeps)

rpm: sdist ## the RPM package, in build/rpm, checked by rpmlint
	@$(NEED) rpm 'command -v rpmbuild' rpmlint 'command -v rpmlint'
	@rm -rf build/rpm
	$(RPMBUILD) -ta --define '_topdir $(CURDIR)/build/rpm' $(SDIST)
	rpmlint --strict --config packaging/rpm/rpmlint.toml --rpmlintrc packaging/rpm/binfmtd.rpmlintrc build/rpm/RPMS build/rpm/SRPMS

# For the system's Python and its packages pydantic, structlog and pyinotify, without a virtual environment.
PREFIX := /usr/local
DESTDIR :=
INSTALL_PYTHON := /usr/bin/python3
bindir := $(PREFIX)/bin
sysconfdir := /etc
unitdir := $(PREFIX)/lib/systemd/system
DOC := $(PREFIX)/share/doc/binfmtd
CONFIG := $(sysconfdir)/binfmtd/binfmtd.toml
# Where that Python finds packages: /usr/lib/python3/dist-packages in Debian, with PREFIX=/usr.
PACKAGES = $(shell $(INSTALL_PYTHON) -c 'import site; print(*[p for p in site.getsitepackages() if p.startswith("$(PREFIX)/lib/")][:1])')

MAN := $(PREFIX)/share/man
# Where each shell finds completions.
COMPLETIONS := bash-completion/completions/binfmtd zsh/site-functions/_binfmtd fish/vendor_completions.d/binfmtd.fish

install: ## the command, unit, docs and what `make man completions` made, below PREFIX=/usr/local (and DESTDIR=); an existing config is kept
	@test -n "$(PACKAGES)" || { echo "make: $(INSTALL_PYTHON) looks for no packages below $(PREFIX): name another PREFIX" >&2; exit 1; }
	rm -rf "$(DESTDIR)$(PACKAGES)/binfmtd"
	install -d "$(DESTDIR)$(PACKAGES)"
	cp -R binfmtd "$(DESTDIR)$(PACKAGES)"
	$(INSTALL_PYTHON) packaging/dist_info.py "$(DESTDIR)$(PACKAGES)" $(VERSION)
	find "$(DESTDIR)$(PACKAGES)/binfmtd" -name __pycache__ -prune -exec rm -rf {} +
	$(INSTALL_PYTHON) -m compileall -q -s "$(DESTDIR)" "$(DESTDIR)$(PACKAGES)/binfmtd"
	install -d "$(DESTDIR)$(bindir)"
	printf '#!$(INSTALL_PYTHON) -I\nfrom binfmtd.cli.main import entry\nentry()\n' >"$(DESTDIR)$(bindir)/binfmtd"
	printf '#!$(INSTALL_PYTHON) -I\nfrom binfmtd.cli.compat.main import entry\nentry()\n' >"$(DESTDIR)$(bindir)/binfmt"
	chmod 755 "$(DESTDIR)$(bindir)/binfmtd" "$(DESTDIR)$(bindir)/binfmt"
	install -d "$(DESTDIR)$(unitdir)"
	for unit in systemd/binfmtd*; do \
	    sed 's|/usr/bin/binfmtd|$(bindir)/binfmtd|' "$$unit" >"$(DESTDIR)$(unitdir)/$${unit#systemd/}" && \
	    chmod 644 "$(DESTDIR)$(unitdir)/$${unit#systemd/}" || exit; done
	install -d "$(DESTDIR)$(DOC)/examples"
	cp -R systemd/drop-ins config "$(DESTDIR)$(DOC)/examples"
	cp -R docs README.md ARCHITECTURE.md CHANGELOG.md SECURITY.md LICENSE "$(DESTDIR)$(DOC)"
	$(INSTALL_PYTHON) packaging/installed_documents.py "$(DESTDIR)$(DOC)"
	chmod -R u=rwX,go=rX "$(DESTDIR)$(PACKAGES)/binfmtd" "$(DESTDIR)$(DOC)"
	@test -d build/man -a -d build/completions || echo "make: without manual pages and completions: run make man completions, and make install again"
	for page in $(MANUALS); do ! test -e build/man/$$page || \
	    install -D -m 644 build/man/$$page "$(DESTDIR)$(MAN)/man$${page##*.}/$$page"; done
	for path in $(COMPLETIONS); do ! test -e build/completions/$${path##*/} || \
	    install -D -m 644 build/completions/$${path##*/} "$(DESTDIR)$(PREFIX)/share/$$path"; done
	test -e "$(DESTDIR)$(CONFIG)" || install -D -m 644 config/binfmtd.toml "$(DESTDIR)$(CONFIG)"

uninstall: ## remove what `make install` installed (same PREFIX and DESTDIR); stops and disables the service, keeps the config
	@test -n "$(PACKAGES)" || { echo "make: $(INSTALL_PYTHON) looks for no packages below $(PREFIX): name another PREFIX" >&2; exit 1; }
	@test -e "$(DESTDIR)$(bindir)/binfmtd" || { \
	    echo "make: there is no $(DESTDIR)$(bindir)/binfmtd: give the variables of the installation, such as PREFIX=/usr" >&2; exit 1; }
	@# With DESTDIR nothing runs.  Else systemd has loaded these units, or those of another PREFIX with the same names.
	@test -n "$(DESTDIR)" || for unit in systemd/binfmtd*; do unit=$${unit#systemd/}; \
	    ours=$$(systemctl show --property=FragmentPath --value "$$unit" 2>/dev/null) || ours=; \
	    [ "$$ours" = "$(unitdir)/$$unit" ] || continue; \
	    echo "make: stopping and disabling $$unit"; \
	    systemctl disable --quiet --now "$$unit" || exit; done
	@test -n "$(DESTDIR)" || ! "$(bindir)/binfmtd" status >/dev/null 2>&1 || { \
	    echo "make: a daemon still runs ('$(bindir)/binfmtd status' has its pid): stop it first" >&2; exit 1; }
	$(INSTALL_PYTHON) packaging/dist_info.py "$(DESTDIR)$(PACKAGES)"
	rm -rf "$(DESTDIR)$(PACKAGES)/binfmtd" "$(DESTDIR)$(DOC)"
	for unit in systemd/binfmtd*; do rm -f "$(DESTDIR)$(unitdir)/$${unit#systemd/}"; done
	for page in $(MANUALS); do rm -f "$(DESTDIR)$(MAN)/man$${page##*.}/$$page"; done
	for path in $(COMPLETIONS); do rm -f "$(DESTDIR)$(PREFIX)/share/$$path"; done
	rm -f "$(DESTDIR)$(bindir)/binfmtd" "$(DESTDIR)$(bindir)/binfmt"
	@test -n "$(DESTDIR)" || systemctl daemon-reload 2>/dev/null || : # where no systemd runs there is nothing to reload
	@test -n "$(DESTDIR)" || ! grep -q ' binfmt_misc ro[, ]' /proc/mounts || \
	    echo "make: binfmt_misc stays sealed: 'mount -o remount,rw /proc/sys/fs/binfmt_misc' opens it"
	@test -n "$(DESTDIR)" || echo "make: entries stay until the next boot unless on_stop = \"remove\" took them; so does $(CONFIG)"

setup: tools $(VENV)/.stamp ## make the virtual environment .venv, and install missing Debian packages

# Checked each time, in a few milliseconds: apt can remove packages between two runs.
tools:
	@$(NEED) util-linux 'command -v unshare && command -v nsenter' \
	    mount 'command -v mount' \
	    qemu-user 'command -v qemu-aarch64 || command -v qemu-aarch64-static'

$(VENV)/.stamp: pyproject.toml
	@$(NEED) python3 'command -v $(PYTHON)' python3-venv '$(PYTHON) -c "import ensurepip"'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1), and binfmtd needs 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making $(VENV)" && $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing binfmtd and its development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean: ## remove everything that make made
	rm -rf $(VENV) build dist crash-* oom-* slow-unit-* timeout-* .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
