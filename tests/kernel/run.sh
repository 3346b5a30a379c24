#!/usr/bin/env bash
# Boots the test kernel under every IOMMU that QEMU models, runs the cases of guest/case.h there, and judges.
#
#   run.sh [--only NAME] KERNEL_IMAGE INIT PROGRAM...
#
# INIT (guest/main.cc) is the guest's process 1; every PROGRAM is /bin/ITS_NAME in the guests that ask for it. NAME: only this
# configuration. Needs qemu-system-x86_64 and cpio, no KVM. Every guest must print `PASS case` for every one of its cases.
# A guest that hangs is killed after IOPLAN_TIMEOUT seconds and counts as a failure.
#
# IOPLAN_SEED, IOPLAN_SEQUENCES, IOPLAN_STEPS, IOPLAN_PLANS, IOPLAN_HISTORIES: how much to ask. IOPLAN_KEEP=FOLDER: keep the consoles there. IOPLAN_JOBS: how
# many guests run at once.
set -euo pipefail

only=
[ "$1" != --only ] || { only=$2; shift 2; }
kernel=$1 init=$2
shift 2
programs=("$@")
work=$(mktemp -d)
trap '[ -z "${IOPLAN_KEEP:-}" ] || cp "$work"/*.log "$IOPLAN_KEEP"; rm -rf "$work"' EXIT
options="ioplan.seed=${IOPLAN_SEED:-1} ioplan.sequences=${IOPLAN_SEQUENCES:-28} ioplan.steps=${IOPLAN_STEPS:-200} ioplan.plans=${IOPLAN_PLANS:-8} ioplan.histories=${IOPLAN_HISTORIES:-6}"

# archive NAME FILE PATH...: a compressed cpio archive with each FILE at PATH, and the shared libraries that they need.
archive() {
  local name=$1 root=$work/$1
  shift
  mkdir -p "$root"
  while [ $# -gt 0 ]; do
    mkdir -p "$root$(dirname "$2")"
    cp "$1" "$root$2"
    { ldd "$1" 2>/dev/null || true; } | { grep -oE '/[^ ]+' || true; } | sort -u | while read -r library; do
      mkdir -p "$root$(dirname "$library")"
      cp -L "$library" "$root$library"
    done
    shift 2
  done
  (cd "$root" && find . | cpio -o -H newc 2>"$work/cpio.err" | gzip -1 >"$work/$name.gz")
}

# Two initial file systems: the bare one, and one with the programs, which takes the guest longer to unpack.
make_archives() {
  archive init "$init" /init
  local list=() program
  for program in "${programs[@]}"; do list+=("$program" "/bin/$(basename "$program")"); done
  archive programs "${list[@]}"
  cat "$work/init.gz" "$work/programs.gz" >"$work/full.gz"
  mv "$work/init.gz" "$work/bare.gz"
}

# Two functions of one slot share a group; what is behind a PCI bridge shares one too.
edu=edu,dma_mask=0xffffffffffffffff
devices="-device e1000e,addr=3 -device $edu,addr=4 -device virtio-rng-pci,addr=5,iommu_platform=on,disable-legacy=on \
-device e1000,addr=6.0,multifunction=on -device e1000,addr=6.1 -net none"
behind_bridge="-device pcie-pci-bridge,id=bridge,addr=7 -device e1000,bus=bridge,addr=1 -device $edu,bus=bridge,addr=2"
everywhere=differential,plans,histories,type1_plans,type1_histories,scan,edu_dma

# name | file system | QEMU's IOMMU | devices | kernel command line | cases; `!case`: the guest must not live to judge it
configurations() {
  local width snoop mode caching
  local -A bit=([on]=1 [off]=0)
  for width in 39 48; do
    for snoop in on off; do
      for mode in off on; do
        for caching in on off; do
          local name="intel-aw$width-snoop_$snoop-scalable_$mode-caching_$caching"
          local device="intel-iommu,intremap=on,aw-bits=$width,snoop-control=$snoop,x-scalable-mode=$mode,caching-mode=$caching"
          local built="ioplan.built.driver=intel ioplan.built.aw=$width ioplan.built.snoop=${bit[$snoop]} ioplan.built.scalable=${bit[$mode]}"
          built="$built ioplan.built.caching=${bit[$caching]}"
          echo "$name|bare|-device $device|$devices $behind_bridge|intel_iommu=on,sm_$mode ioplan.devices=9 $built|$everywhere,hazards"
        done
      done
    done
  done
  echo "amd|bare|-device amd-iommu,intremap=on|$devices $behind_bridge|iommufd.allow_unsafe_interrupts=1 vfio_iommu_type1.allow_unsafe_interrupts=1 ioplan.devices=9 ioplan.built.driver=amd|$everywhere"
  # With a PCI bridge in the machine Linux makes no groups behind virtio-iommu at all.
  echo "virtio|bare|-device virtio-iommu-pci,addr=2|$devices|ioplan.devices=7 iommufd.allow_unsafe_interrupts=1 vfio_iommu_type1.allow_unsafe_interrupts=1 ioplan.isolated_msi=0 ioplan.built.driver=virtio|$everywhere"
  echo "virtio-without-isolated-msi|bare|-device virtio-iommu-pci,addr=2|$devices|ioplan.devices=7 ioplan.isolated_msi=0|isolated_msi"
  echo "selftest|full||-net none|ioplan.devices=0|selftest"
  # The program itself, as root and as a user.
  echo "program|full|-device intel-iommu,intremap=on|$devices|intel_iommu=on ioplan.devices=7|refusals,dirty"
  echo "killed|full|-device intel-iommu,intremap=on|$devices|intel_iommu=on ioplan.devices=7 ioplan.kills=${IOPLAN_KILLS:-40}|killed"
  # Benches, only when they are named. By instructions (-icount), because a guest without KVM has no other clock worth reading.
  case "$only" in
    map_bench) echo "$only|bare|-device intel-iommu,intremap=on|$devices -m 1200M -icount shift=0,sleep=off|intel_iommu=on ioplan.devices=7 ioplan.rounds=1|map_bench" ;;
    map_bench_threads) echo "$only|bare|-device intel-iommu,intremap=on|$devices -m 2G -smp 2|intel_iommu=on ioplan.devices=7|map_bench" ;;
  esac
  # These kill the guest's kernel.
  local intel="-device intel-iommu,intremap=on|$devices|intel_iommu=on ioplan.devices=7"
  echo "h3-mock-onto-pci|bare|$intel|!h3_mock_onto_pci"
  echo "h3-pci-onto-mock|bare|$intel|!h3_pci_onto_mock"
}

# Replaces the shell that it runs in.
boot() {
  local name=$1 files=$2 iommu=$3 machine=$4 line=$5 cases=$6 threads=multi
  case "$machine" in *-icount*) threads=single ;; esac
  # shellcheck disable=SC2086
  exec timeout "${IOPLAN_TIMEOUT:-240}" qemu-system-x86_64 -machine q35,kernel-irqchip=split -accel "tcg,thread=$threads" -cpu max \
    -m 1G -smp 1 -display none -vga none -serial "file:$work/$name.log" -no-reboot -kernel "$kernel" \
    -initrd "$work/$files.gz" $iommu $machine \
    -append "console=ttyS0 quiet vfio-pci.disable_idle_d3=1 panic=-1 no_timer_check iommu=nopt $line $options ioplan.run=${cases#!}" \
    >"$work/$name.qemu" 2>&1 </dev/null
}

# A kernel that hangs does so for ever: 15 seconds after the last word are enough.
boot_to_death() {
  boot "$@" &
  local guest=$! silent=0
  while kill -0 "$guest" 2>/dev/null && [ "$silent" -lt 15 ]; do
    sleep 1
    ! grep -aq '^SENT ' "$work/$1.log" 2>/dev/null || silent=$((silent + 1))
  done
  kill "$guest" 2>/dev/null || true
  wait "$guest" || true
}

# What a guest printed: a PASS for each of its cases, no FAIL. One that must die: the deadly call, and nothing after it.
judge() {
  local name=$1 cases=$2 log=$work/$1.log case
  [ -f "$log" ] || return 1
  if [ "${cases#!}" != "$cases" ]; then
    grep -aq "^SENT ${cases#!}" "$log" && ! grep -aqE '^(PASS|FAIL) ' "$log"
    return
  fi
  for case in ${cases//,/ }; do grep -aq "^PASS $case: " "$log" || return 1; done
  ! grep -aq '^FAIL ' "$log"
}

run_guest() {
  local name=$1 cases=$6 log=$work/$1.log
  case "$cases" in
    !*) boot_to_death "$@" ;;
    *) (boot "$@") || true ;;
  esac
  if judge "$name" "$cases"; then
    echo "ok   $name: $(grep -aE '^(PASS|SENT|Oops|BUG:)' "$log" | tr -d '\r' | cut -d' ' -f3- | paste -sd ';')"
  else
    echo "FAIL $name"
    tail -n 80 "$work/$name.qemu" "$log" | tr -d '\r' | sed 's/^/     /'
    return 1
  fi
}

make_archives
mapfile -t list < <(configurations)
ran=0 failed=0 running=()
finish_one() {
  wait "${running[0]}" || failed=$((failed + 1))
  running=("${running[@]:1}")
}
for line in "${list[@]}"; do
  IFS='|' read -r name files iommu machine append cases <<<"$line"
  [ -z "$only" ] || [ "$only" = "$name" ] || continue
  run_guest "$name" "$files" "$iommu" "$machine" "$append" "$cases" &
  running+=($!)
  ran=$((ran + 1))
  [ ${#running[@]} -lt "${IOPLAN_JOBS:-2}" ] || finish_one
done
while [ ${#running[@]} -gt 0 ]; do finish_one; done
compared=0
for calls in $(sed -nE 's/^PASS differential: ([0-9]+) calls.*/\1/p' "$work"/*.log); do compared=$((compared + calls)); done
echo "$ran of ${#list[@]} configurations ran, $((${#list[@]} - ran)) left out, $failed failed; $compared calls compared"
[ "$failed" -eq 0 ] && [ "$ran" -gt 0 ] && { [ -n "$only" ] || [ "$ran" -eq ${#list[@]} ]; }
