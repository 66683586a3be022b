# SPDX-License-Identifier: GPL-2.0-or-later
# Everything that a developer runs. Needs Rust, git and make; `make deps` installs the rest on Debian.

CARGO ?= cargo

# What building an update for a Debian kernel, and testing it in a virtual machine, needs.
PACKAGES = gcc-12 gcc gcc-11 clang dwarves libc6-dev make binutils patch diffutils bison flex bc libelf-dev libssl-dev perl python3 \
	xz-utils zstd bzip2 lz4 lzop gzip tar rsync cpio kmod dpkg dpkg-dev apt ca-certificates openssl \
	qemu-system-x86 qemu-system-arm qemu-user-static e2fsprogs \
	gcc-aarch64-linux-gnu binutils-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf \
	gcc-riscv64-linux-gnu binutils-riscv64-linux-gnu

.PHONY: all deps demo test quick lint fmt install deb

all:
	$(CARGO) build --workspace

# Installs what is missing, and gets apt's lists if there are none; says what to run where it may not.
# (The lists' own times are the server's; the directory's time is that of the last update.)
deps:
	@missing=$$(for package in $(PACKAGES); do \
		dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || echo $$package; \
	done); \
	lists=$$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' 2>/dev/null | head -n 1); \
	recent=$$(find /var/lib/apt/lists/partial -maxdepth 0 -mtime -1 2>/dev/null); \
	if [ -n "$$lists" ] && [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "packages or apt's lists are missing; as root, run:"; \
		echo "  apt-get update && apt-get install -y --no-install-recommends" $$missing; \
		exit 1; \
	fi; \
	if [ -z "$$lists" ] || [ -z "$$recent" ]; then \
		echo "updating apt's lists"; apt-get -q update || exit 1; \
	fi; \
	if [ -n "$$missing" ]; then \
		echo "installing" $$missing; \
		DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $$missing; \
	fi

# A real fix onto a stock, running kernel, and off again.
demo: deps
	$(CARGO) run --quiet -p splice-lab -- demo

# Quick tests only: no virtual machine, no package.
quick:
	$(CARGO) test --workspace

# Everything.
test: deps quick
	$(CARGO) run --quiet -p splice-lab -- test

fmt:
	$(CARGO) fmt --all

lint: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) run --quiet -p splice-lab -- checkpatch kmod

DESTDIR ?=
PREFIX ?= /usr
SYSTEMD ?= /lib/systemd/system
SPLICE = target/release/splice

$(SPLICE): all-release
.PHONY: all-release
all-release:
	$(CARGO) build --release -p splice-cli

# The command, its manual page and completions, and the services that apply what is installed.
install: $(SPLICE)
	install -D -s -m 755 $(SPLICE) $(DESTDIR)$(PREFIX)/sbin/splice
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(SPLICE) man | gzip -9n > $(DESTDIR)$(PREFIX)/share/man/man1/splice.1.gz
	$(SPLICE) completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/splice
	$(SPLICE) completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_splice
	$(SPLICE) completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/splice.fish
	install -D -m 644 packaging/splice.service $(DESTDIR)$(SYSTEMD)/splice.service
	install -D -m 755 packaging/splice.init $(DESTDIR)/etc/init.d/splice

# A Debian package of the same, in target/. No module source is in it for DKMS: each update carries the
# transaction core, built for its kernel.
deb: $(SPLICE)
	rm -rf target/deb
	$(MAKE) install DESTDIR=target/deb
	install -d -m 755 target/deb/DEBIAN
	echo /etc/init.d/splice > target/deb/DEBIAN/conffiles
	install -m 755 packaging/postinst packaging/postrm target/deb/DEBIAN
	sed -e "s/@VERSION@/$$($(SPLICE) --version | cut -d' ' -f2)/" \
		-e "s/@ARCH@/$$(dpkg --print-architecture)/" \
		-e "s/@SIZE@/$$(du -sk target/deb/usr | cut -f1)/" packaging/control.in > target/deb/DEBIAN/control
	dpkg-deb --root-owner-group --build target/deb target
