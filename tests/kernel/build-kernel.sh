#!/usr/bin/env bash
# Builds the kernel under test from Debian's newest `linux-source` package: tinyconfig and kernel.config, nothing else.
#
#   build-kernel.sh FOLDER      -> FOLDER/bzImage, from FOLDER/source (fetch-source.sh)
#
# Takes about 5 minutes on 2 cores. Needs: gcc make flex bison bc libelf-dev libssl-dev xz-utils.
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)

"$here/fetch-source.sh" "$folder"
cd "$folder/source"
make -s tinyconfig
scripts/kconfig/merge_config.sh -m .config "$here/kernel.config" >/dev/null
make -s olddefconfig
make -s -j"$(nproc)" bzImage
cp arch/x86/boot/bzImage "$folder/bzImage"
echo "build-kernel: $folder/bzImage, Linux $(make -s kernelversion)" >&2
