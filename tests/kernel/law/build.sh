#!/usr/bin/env bash
# Makes one shared library a driver out of Linux's source: cuts the judged functions out and compiles them beside our
# shims (linux/).
#
#   build.sh EXTRACT SOURCE_TREE FOLDER [DRIVER...]      -> FOLDER/DRIVER.so
#
# EXTRACT is the program of extract/main.cc. What it makes is part of Linux and stays in FOLDER, which is the user's own
# build directory. A function that is not there any more, or does not compile, ends this with its name and the kernel's
# file. Needs: gcc.
set -euo pipefail

extract=$1 source=$(cd "$2" && pwd) folder=$3
shift 3
[ $# -gt 0 ] || set -- intel amd smmuv3 virtio
here=$(cd "$(dirname "$0")" && pwd)
shims=$here/linux
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
include=$folder/include
rm -rf "$include"
mkdir -p "$include/linux"

compile() {
  gcc -std=gnu11 -O2 -fPIC -Wall -Wno-unused -Wno-maybe-uninitialized -Werror=implicit-function-declaration \
    -Werror=incompatible-pointer-types -Werror=int-conversion -include "$shims/kernel.h" \
    -I"$include" -I"$folder" -I"$here" -I"$source/drivers/iommu" "$@"
}

# The names that a file and its headers define: what the extraction leaves to them.
names_of() { compile -E -dD "$1" -o "$2"; }

# Kernel headers that generic_pt names and our shims replace are empty; its own are the kernel's.
empty_headers() {
  local iommu=$source/drivers/iommu header
  grep -hoE '^#include <[^>]+>' "$iommu/iommu-pages.h" "$iommu"/{generic_pt,generic_pt/fmt}/*.[ch] \
    "$source"/include/linux/generic_pt/*.h | sed 's/.*<//; s/>//' | sort -u |
    grep -v -e '^linux/errno.h$' -e '^linux/generic_pt/' | while read -r header; do
    mkdir -p "$include/$(dirname "$header")"
    : >"$include/$header"
  done
  ln -s "$source/include/linux/generic_pt" "$include/linux/generic_pt"
}

# What all drivers share: <linux/iommu.h> and the page tables of generic_pt, compiled whole.
build_common() {
  empty_headers
  names_of "$shims/kernel.h" "$folder/core.names"
  "$extract" "$source" "$shims/core.recipe" "$folder/core.names" >"$folder/core.part"
  mv "$folder/core.part" "$include/linux/iommu.h"
  for format in amdv1 vtdss x86_64; do
    compile -DCONFIG_X86=1 -c "$source/drivers/iommu/generic_pt/fmt/iommu_$format.c" -o "$folder/$format.o"
  done
  compile -c "$shims/pages.c" -o "$folder/pages.o"
}

# build_driver NAME [OBJECT...]: the driver's own file includes what was cut out for it.
build_driver() {
  local driver=$1
  shift
  : >"$folder/$driver.inc"
  names_of "$shims/$driver.c" "$folder/$driver.names"
  cat "$shims/attach.recipe" "$shims/$driver.recipe" >"$folder/$driver.recipe"
  "$extract" "$source" "$folder/$driver.recipe" "$folder/$driver.names" >"$folder/$driver.part"
  mv "$folder/$driver.part" "$folder/$driver.inc"
  compile -c "$shims/$driver.c" -o "$folder/$driver.o"
  gcc -shared -Wl,-z,defs -o "$folder/$driver.so" "$folder/$driver.o" "$folder/pages.o" "$@"
}

echo "law: Linux $(sed -n 's/^\(VERSION\|PATCHLEVEL\|SUBLEVEL\) = //p' "$source/Makefile" | paste -sd .), $source" >&2
build_common
for driver in "$@"; do
  case $driver in
    intel) build_driver intel "$folder/vtdss.o" "$folder/x86_64.o" ;;
    amd) build_driver amd "$folder/amdv1.o" "$folder/x86_64.o" ;;
    *) build_driver "$driver" ;;
  esac
done
