#!/bin/bash
# The README's two commands on a fresh Debian, by an ordinary user: makes a debootstrap root,
# installs only what the README names, clones this checkout's HEAD into it and runs both.
# Needs root, debootstrap and the Debian mirror. The log is kept in build/test-fresh.log.
# Other commands than the README's may be given as arguments.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$PWD
suite=${SUITE:-bookworm}
root=$(mktemp -d "${TMPDIR:-/var/tmp}/pinaivu-fresh.XXXXXX")
chmod 755 "$root"
mkdir -p build
log=$tree/build/test-fresh.log
[ "$(id -u)" = 0 ] || { echo "test-fresh: run as root (it makes a chroot)" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "test-fresh: apt-get install debootstrap" >&2; exit 2; }

cleanup() {
    for point in proc sys dev/shm dev/pts dev; do
        mountpoint -q "$root/$point" && umount -l "$root/$point"
    done
    [ "${KEEP:-}" ] || rm -rf "$root"
}
trap cleanup EXIT
exec > >(tee "$log") 2>&1
stage() { printf '\n=== %s (%s)\n' "$1" "$(date -u +%H:%M:%S)"; }

stage "debootstrap $suite"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" | tail -n 1
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --bind /dev "$root/dev"
mount -t devpts devpts "$root/dev/pts" 2>/dev/null || mount --bind /dev/pts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
# How this machine reaches the package registries: resolver, trust roots, client configuration.
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/hosts "$root/etc/hosts"
cp -rL /etc/apt/sources.list* "$root/etc/apt/" 2>/dev/null || true
[ -d /etc/apt/apt.conf.d ] && cp -rL /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
    npm_config_cafile=/etc/ssl/certs/ca-certificates.crt "$@"; }

stage "the packages that the README names"
inside apt-get update -qq
packages=$(sed -n 's/^sudo apt-get install \(.*\)$/\1/p' README.md | tr '\n' ' ')
[ -n "$packages" ] || { echo "test-fresh: README.md names no packages" >&2; exit 1; }
# shellcheck disable=SC2086
inside apt-get install -y -qq --no-install-recommends $packages >/dev/null
inside useradd -m stranger

stage "clone"
git bundle create -q "$root/home/stranger/pinaivu.bundle" HEAD
[ -d "$tree/../shared/vectors" ] && mkdir -p "$root/home/stranger/shared" &&
    cp -r "$tree/../shared/vectors" "$root/home/stranger/shared/"
chmod -R a+rX "$root/home/stranger"
as_user() { inside su stranger -s /bin/bash -c "cd ~ && export SSL_CERT_FILE PIP_CERT \
    NODE_EXTRA_CA_CERTS npm_config_cafile && $1"; }
as_user "git clone -q pinaivu.bundle pinaivu"

run() {
    stage "$1"
    local start
    start=$(date +%s)
    as_user "cd pinaivu && $1"
    printf '=== %s: %s s, tree now %s\n' "$1" "$(($(date +%s) - start))" \
        "$(du -sh "$root/home/stranger/pinaivu" | cut -f1)"
}
[ $# -gt 0 ] || set -- "make demo ONCE=1" "make demo ONCE=1" "make test"
for command in "$@"; do
    run "$command"
done
stage "done"
