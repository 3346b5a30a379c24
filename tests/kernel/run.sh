#!/usr/bin/env bash
# Boots the test kernel under every IOMMU that QEMU models and runs the guest program there (guest/main.cc).
#
#   run.sh GUEST_PROGRAM KERNEL_IMAGE [NAME]     NAME: only this configuration
#
# IOPLAN_SEED, IOPLAN_SEQUENCES, IOPLAN_STEPS, IOPLAN_PLANS: how much to ask. Needs qemu-system-x86_64, no KVM. A guest that hangs is
# killed after IOPLAN_TIMEOUT seconds and counts as a failure.
set -euo pipefail

program=$1 kernel=$2 only=${3:-}
seed=${IOPLAN_SEED:-1} sequences=${IOPLAN_SEQUENCES:-150} steps=${IOPLAN_STEPS:-50} plans=${IOPLAN_PLANS:-20}
work=$(mktemp -d)
trap '[ -n "${IOPLAN_KEEP:-}" ] && cp "$work"/*.log "$IOPLAN_KEEP"; rm -rf "$work"' EXIT

# The program as /init, with the shared libraries that it needs.
make_initramfs() {
  local root=$work/root
  mkdir -p "$root"
  cp "$program" "$root/init"
  { ldd "$program" || true; } | grep -oE '/[^ ]+' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
  (cd "$root" && find . | cpio -o -H newc 2>"$work/cpio.log" | gzip -1 >"$work/initramfs.gz")
}

# name | QEMU's IOMMU | devices | kernel command line
configurations() {
  local width snoop mode caching
  for width in 39 48; do
    for snoop in on off; do
      for mode in off on; do
        for caching in on off; do
          local name="intel-aw$width-snoop_$snoop-scalable_$mode-caching_$caching"
          local device="intel-iommu,intremap=on,aw-bits=$width,snoop-control=$snoop,x-scalable-mode=$mode,caching-mode=$caching"
          echo "$name|-device $device|$devices $behind_bridge|intel_iommu=on,sm_$mode ioplan.devices=9"
        done
      done
    done
  done
  echo "amd|-device amd-iommu,intremap=on|$devices $behind_bridge|iommufd.allow_unsafe_interrupts=1 ioplan.devices=9"
  # With a PCI bridge in the machine Linux makes no groups behind virtio-iommu at all.
  echo "virtio|-device virtio-iommu-pci,addr=2|$devices|ioplan.devices=7 iommufd.allow_unsafe_interrupts=1 ioplan.isolated_msi=0"
}

# Two functions of one slot share a group; what is behind a PCI bridge shares one too.
devices="-device e1000e,addr=3 -device edu,addr=4 -device virtio-rng-pci,addr=5,iommu_platform=on,disable-legacy=on \
-device e1000,addr=6.0,multifunction=on -device e1000,addr=6.1 -net none"
behind_bridge="-device pcie-pci-bridge,id=bridge,addr=7 -device e1000,bus=bridge,addr=1 -device edu,bus=bridge,addr=2"

boot() {
  local name=$1 iommu=$2 machine=$3 line=$4
  # shellcheck disable=SC2086
  timeout "${IOPLAN_TIMEOUT:-240}" qemu-system-x86_64 -machine q35,kernel-irqchip=split -accel tcg,thread=multi -cpu max \
    -m 1G -smp 1 -display none -vga none -serial "file:$work/$name.log" -no-reboot -kernel "$kernel" \
    -initrd "$work/initramfs.gz" $iommu $machine \
    -append "console=ttyS0 quiet panic=-1 no_timer_check iommu=nopt $line ioplan.seed=$seed ioplan.sequences=$sequences ioplan.steps=$steps ioplan.plans=$plans" \
    >"$work/$name.qemu" 2>&1 </dev/null || true
  if grep -q '^PASS' "$work/$name.log"; then
    echo "ok   $name: $(grep -aE ' calls, | plans applied' "$work/$name.log" | tr -d '\r' | paste -sd ';')"
  else
    echo "FAIL $name"
    tail -n 80 "$work/$name.qemu" "$work/$name.log" | tr -d '\r' | sed 's/^/     /'
    return 1
  fi
}

make_initramfs
mapfile -t list < <(configurations)
ran=0 failed=0 running=()
finish_one() {
  wait "${running[0]}" || failed=$((failed + 1))
  running=("${running[@]:1}")
}
for line in "${list[@]}"; do
  IFS='|' read -r name iommu machine append <<<"$line"
  [ -z "$only" ] || [ "$only" = "$name" ] || continue
  boot "$name" "$iommu" "$machine" "$append" &
  running+=($!)
  ran=$((ran + 1))
  [ ${#running[@]} -lt 2 ] || finish_one
done
while [ ${#running[@]} -gt 0 ]; do finish_one; done
echo "$ran of ${#list[@]} configurations ran, $failed failed"
[ "$failed" -eq 0 ] && { [ -n "$only" ] || [ "$ran" -eq ${#list[@]} ]; }
