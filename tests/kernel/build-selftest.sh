#!/usr/bin/env bash
# Builds the kernel's own selftest of iommufd, statically, from Linux's source.
#
#   build-selftest.sh SOURCE FOLDER      -> FOLDER/iommufd; nothing to do when it is there
#
# Needs: gcc make rsync libcap-dev. SOURCE is left as it was, and nothing of it is committed.
set -euo pipefail

source=$1 folder=$(mkdir -p "$2" && cd "$2" && pwd)
[ ! -x "$folder/iommufd" ] || exit 0

selftests=$source/tools/testing/selftests
make -s -C "$source" O="$folder/headers" headers_install INSTALL_HDR_PATH="$folder/usr" >&2
gcc -static -O2 -D_GNU_SOURCE -I"$folder/usr/include" -I"$selftests" -o "$folder/iommufd.part" "$selftests/iommu/iommufd.c" -lcap
mv "$folder/iommufd.part" "$folder/iommufd"
