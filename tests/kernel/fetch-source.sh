#!/usr/bin/env bash
# Linux's source as Debian packages it: what the kernel under test, its selftest and the law's judge are built from.
#
#   fetch-source.sh FOLDER      -> FOLDER/source; nothing to do when it is there
#
# The newest `linux-source` package comes from Debian's unstable suite, from the mirror that apt uses here, through an apt
# configuration of its own, so that the machine's does not change. About a minute. The source is never committed. Needs: xz-utils.
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
[ ! -f "$folder/source/Makefile" ] || exit 0
mirror=${IOPLAN_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | { grep -E '/debian/?$' || true; } | head -n 1)}
[ -n "$mirror" ] || { echo "fetch-source: apt knows no mirror of Debian: name one in IOPLAN_DEBIAN_MIRROR" >&2; exit 1; }

apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
  -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o APT::Architectures::=amd64)
apt-get "${options[@]}" update -qq
package=$(apt-cache "${options[@]}" search --names-only '^linux-source-[0-9.]+$' | cut -d' ' -f1 | sort -V | tail -n 1)
echo "fetch-source: $package" >&2
cd "$folder"
apt-get "${options[@]}" download "$package"
dpkg-deb --fsys-tarfile ./"$package"_*.deb | tar xf - --wildcards './usr/src/*.tar.xz'
rm -rf source.part
mkdir source.part
tar xf usr/src/linux-source-*.tar.xz -C source.part --strip-components=1
mv source.part source
rm -rf usr linux-source-*.deb
