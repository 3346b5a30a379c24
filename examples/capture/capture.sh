#!/bin/sh
# Captures what `ioplan scan` reads, where nothing can be installed: sh capture.sh FILE.tar [ROOT]. Names of hosts, MAC
# addresses and serial numbers stay behind. As root it sees every capability of the devices; without root, fewer.
set -eu
out=$1 root=${2:-} to=${TMPDIR:-/tmp}/ioplan-capture.$$ && mkdir -m 700 "$to" && trap 'rm -rf "$to"' EXIT
put() { mkdir -p "$to/${1%/*}" && cat >"$to/$1"; } # standard input becomes a file of the capture
keep() { for f; do [ ! -f "$root/$f" ] || [ ! -r "$root/$f" ] || cat "$root/$f" | put "$f"; done; }
link() { for f; do [ ! -L "$root/$f" ] || { mkdir -p "$to/${f%/*}" && cp -P "$root/$f" "$to/$f"; }; done; }
words() { for w in $(cat); do case $w in intel_iommu=* | amd_iommu=* | amd_iommu_intr=* | amd_iommu_dump* | iommu=* | iommu.* | \
  intremap=* | nointremap* | ivrs_* | arm-smmu* | arm_smmu* | vfio* | iommufd* | pcie_acs_override=* | mem_encrypt=*) \
  printf '%s ' "$w" ;; esac; done; }
lines() { while IFS= read -r l && [ -n "$l" ]; do for p; do case $l in $p*) printf '%s\n' "$l" ;; esac; done; done; }
apic() { while read -r l; do case $l in *IR-IO-APIC*) echo IR-IO-APIC && break ;; *" IO-APIC"*) echo IO-APIC && break ;; esac; done; }
config() { # a configuration space; the 8 bytes of a Device Serial Number (extended capability 3) become zeros
  f=$1 at=256 left=480 && set -- $(od -An -v -tu1 "$f")
  while [ $at -ge 256 ] && [ $((at + 12)) -le $# ] && [ $((left -= 1)) -gt 0 ]; do
    eval "id=\$((\${$((at + 1))} + \${$((at + 2))} * 256)) next=\$(((\${$((at + 3))} >> 4) + (\${$((at + 4))} << 4)))"
    [ $id -ne 3 ] || { head -c $((at + 4)) "$f" && printf '\0\0\0\0\0\0\0\0' && tail -c +$((at + 13)) "$f" && return; }
    at=$((next & 4092))
  done
  cat "$f"
}
all() { for d in "$root/$1"/*; do [ ! -e "$d" ] && [ ! -L "$d" ] || printf '%s\n' "$1/${d##*/}"; done; } # what is in a folder
keep proc/sys/kernel/arch proc/sys/kernel/osrelease sys/module/iommufd/parameters/allow_unsafe_interrupts \
  sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts sys/kernel/mm/transparent_hugepage/hpage_pmd_size \
  usr/share/misc/pci.ids usr/share/hwdata/pci.ids
[ ! -r "$root/proc/cmdline" ] || words <"$root/proc/cmdline" | put proc/cmdline
[ ! -r "$root/proc/meminfo" ] || lines MemTotal: <"$root/proc/meminfo" | put proc/meminfo
[ ! -r "$root/proc/cpuinfo" ] || lines vendor_id flags 'address sizes' <"$root/proc/cpuinfo" | put proc/cpuinfo
[ ! -r "$root/proc/interrupts" ] || apic <"$root/proc/interrupts" | put proc/interrupts
ivrs=sys/firmware/acpi/tables/IVRS && { [ ! -r "$root/$ivrs" ] || head -c 40 "$root/$ivrs" | put $ivrs; }
all sys/kernel/mm/hugepages | while read -r d; do keep "$d/nr_hugepages" "$d/free_hugepages"; done
all sys/class/iommu | while read -r d; do
  mkdir -p "$to/$d" && link "$d/device/driver"
  for f in cap ecap address version; do keep "$d/intel-iommu/$f"; done
  keep "$d/amd-iommu/features"
done
all sys/kernel/iommu_groups | while read -r d; do
  mkdir -p "$to/$d" && keep "$d/type" "$d/reserved_regions"
  all "$d/devices" | while read -r d; do mkdir -p "$to/$d" && link "$d/iommu" "$d/driver"; done
done
all sys/bus/pci/devices | while read -r d; do
  mkdir -p "$to/$d" && link "$d/driver" "$d/iommu" "$d/iommu_group" "$d/physfn"
  for f in class vendor device numa_node resource sriov_totalvfs; do keep "$d/$f"; done
  [ ! -r "$root/$d/config" ] || config "$root/$d/config" | put "$d/config"
done
(cd "$to" && { tar --numeric-owner -cf - . 2>/dev/null || tar -cf - .; }) >"$out" # by numbers: no login names
