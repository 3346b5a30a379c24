#!/usr/bin/env bash
# Builds the kernel under test from Debian's newest `linux-source` package: tinyconfig and kernel.config, nothing else.
#
#   build-kernel.sh FOLDER      -> FOLDER/bzImage, FOLDER/source (iommufd's selftest is taken from there)
#
# The package comes from Debian's unstable suite through an apt configuration of its own, so that the machine's does not
# change. Takes about 5 minutes on 2 cores. Needs: gcc make flex bison bc libelf-dev libssl-dev xz-utils.
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
mirror=${IOPLAN_DEBIAN_MIRROR:-http://deb.debian.org/debian}

fetch_source() {
  local apt=$folder/apt
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
  local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o APT::Architectures::=amd64)
  apt-get "${options[@]}" update -qq
  local package
  package=$(apt-cache "${options[@]}" search --names-only '^linux-source-[0-9.]+$' | cut -d' ' -f1 | sort -V | tail -n 1)
  echo "build-kernel: $package" >&2
  (cd "$folder" && apt-get "${options[@]}" download "$package" && dpkg-deb --fsys-tarfile ./"$package"_*.deb | tar xf - --wildcards './usr/src/*.tar.xz')
  mkdir -p "$folder/source"
  tar xf "$folder"/usr/src/linux-source-*.tar.xz -C "$folder/source" --strip-components=1
  rm -rf "$folder/usr" "$folder"/linux-source-*.deb
}

[ -f "$folder/source/Makefile" ] || fetch_source
cd "$folder/source"
make -s tinyconfig
scripts/kconfig/merge_config.sh -m .config "$here/kernel.config" >/dev/null
make -s olddefconfig
make -s -j"$(nproc)" bzImage
cp arch/x86/boot/bzImage "$folder/bzImage"
echo "build-kernel: $folder/bzImage, Linux $(make -s kernelversion)" >&2
