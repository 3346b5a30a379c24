// The hazards of replace in Linux 7.2.13 (KR 2.4), one by one, on Linux and on the simulator, which must answer alike.
//
// H1 and H2 want a replace that the driver refuses. With one IOMMU in the machine that is a HWPT with a fault queue on
// Intel's driver, which wants page requests turned on and answers ENODEV (AMD's accepts it). H3 takes the
// kernel down: `h3_*` run in guests of their own, which run.sh expects to die after `SENT`.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>

#include "tests/kernel/guest/edu.h"
#include "tests/kernel/guest/kernel_log.h"
#include "tests/kernel/guest/twins.h"

namespace ioplan::kernel_test {

namespace {

constexpr std::uint64_t kIova = 0x1000000, kMiB = std::uint64_t{1} << 20, kMsiWindow = 0xfee00000;

unsigned first_edu(const Guest& guest) {
  return *std::ranges::find_if(guest.pci, [&](unsigned d) { return Edu::is_edu(guest.host.devices[d]); });
}

unsigned another_pci_device(const Guest& guest, unsigned than) {
  const auto other = [&](unsigned d) { return guest.host.devices[d].group != guest.host.devices[than].group; };
  return *std::ranges::find_if(guest.pci, other);
}

unsigned first_mock(const Guest& guest) {
  return *std::ranges::find_if(guest.bindable, [&](unsigned d) { return guest.is_mock(d); });
}

bool holds_window(const Reply& ranges) {
  for (std::size_t i = 0; i + 1 < ranges.words.size(); i += 2) {
    if (ranges.words[i] <= kMsiWindow && ranges.words[i + 1] >= kMsiWindow + kMiB - 1) return true;
  }
  return false;
}

// H1: after a refused replace the device has no translation, though iommufd records the old HWPT. Detach and attach repair.
bool refused_replace_blocks_dma(const Guest& guest) {
  const unsigned edu = first_edu(guest);
  Twins twins(guest);
  KernelLog log;
  twins.expect(0, bind(edu));
  twins.expect(0, ioas_alloc());
  twins.expect(0, fault_queue_alloc());
  twins.expect(0, map(0, 0, 2 * kMiB, kIova));
  twins.expect(0, attach_ioas(edu, 0));
  twins.expect(0, dma_write(edu, 0, kIova));
  twins.expect(0, hwpt_alloc(edu, 0, kFaultIdValid));
  twins.expect(ENODEV, attach_hwpt(edu, 0));
  twins.expect(EFAULT, dma_write(edu, 0x1000, kIova + 0x1000));
  const std::string line = log.wait_for("DMAR:", "fault addr 0x1001000");
  twins.expect_that(!line.empty(), "Linux logs the fault");
  std::printf("  H1: %s\n", line.c_str());
  twins.expect(0, attach_ioas(edu, 0));  // its own HWPT: nothing is done
  twins.expect(EFAULT, dma_write(edu, 0x2000, kIova + 0x2000));
  twins.expect(0, detach(edu));
  twins.expect(0, attach_ioas(edu, 0));
  twins.expect(0, dma_write(edu, 0x3000, kIova + 0x3000));
  return twins.agree();
}

// A replace that succeeds repairs too.
bool good_replace_repairs(const Guest& guest) {
  const unsigned edu = first_edu(guest);
  Twins twins(guest);
  twins.expect(0, bind(edu));
  twins.expect(0, ioas_alloc());
  twins.expect(0, fault_queue_alloc());
  twins.expect(0, map(0, 0, 2 * kMiB, kIova));
  twins.expect(0, attach_ioas(edu, 0));
  twins.expect(0, hwpt_alloc(edu, 0, kFaultIdValid));
  twins.expect(0, hwpt_alloc(edu, 0));
  twins.expect(ENODEV, attach_hwpt(edu, 0));
  twins.expect(EFAULT, dma_write(edu, 0, kIova));
  twins.expect(0, attach_hwpt(edu, 1));
  twins.expect(0, dma_write(edu, 0, kIova));
  return twins.agree();
}

// A first attach that is refused leaves nothing behind.
bool refused_attach_is_harmless(const Guest& guest) {
  const unsigned edu = first_edu(guest);
  Twins twins(guest);
  twins.expect(0, bind(edu));
  twins.expect(0, ioas_alloc());
  twins.expect(0, fault_queue_alloc());
  twins.expect(0, map(0, 0, 2 * kMiB, kIova));
  twins.expect(0, hwpt_alloc(edu, 0, kFaultIdValid));
  const Reply before = twins.expect(0, iova_ranges(0));
  twins.expect(ENODEV, attach_hwpt(edu, 0));
  twins.expect_that(twins.expect(0, iova_ranges(0)) == before, "a refused attach reserves nothing");
  twins.expect(0, attach_ioas(edu, 0));
  twins.expect(0, dma_write(edu, 0, kIova));
  return twins.agree();
}

// H2: refused replaces within an IOAS free the group's reserved regions; once all devices were refused, memory can be
// mapped where interrupts are written. Detach and attach reserve again, unless memory is there.
bool refused_replaces_free_the_msi_window(const Guest& guest) {
  const unsigned first = first_edu(guest), second = another_pci_device(guest, first);
  Twins twins(guest);
  for (const unsigned device : {first, second}) twins.expect(0, bind(device));
  twins.expect(0, ioas_alloc());
  twins.expect(0, fault_queue_alloc());
  for (const unsigned device : {first, second}) twins.expect(0, attach_ioas(device, 0));
  twins.expect(0, hwpt_alloc(first, 0, kFaultIdValid));
  twins.expect(EINVAL, map(0, 0, kMiB, kMsiWindow));
  twins.expect(ENODEV, attach_hwpt(first, 0));
  twins.expect_that(!holds_window(twins.expect(0, iova_ranges(0))), "the second device still reserves the window");
  twins.expect(ENODEV, attach_hwpt(second, 0));
  twins.expect_that(holds_window(twins.expect(0, iova_ranges(0))), "the window is free after the second refusal");
  twins.expect(0, map(0, 0, kMiB, kMsiWindow));
  twins.expect(0, detach(first));
  twins.expect(EADDRINUSE, attach_ioas(first, 0));
  twins.expect(0, unmap(0, kMsiWindow, kMiB));
  twins.expect(0, attach_ioas(first, 0));
  twins.expect_that(!holds_window(twins.expect(0, iova_ranges(0))), "an attach reserves the window again");
  twins.expect(EINVAL, map(0, 0, kMiB, kMsiWindow));
  return twins.agree();
}

// Found here, and not in KR: what Linux makes of dirty leaves (README.md). The simulator reads them right, and says so when
// Linux would not.
void write_to_tracked_memory(Twins& twins, unsigned mock, std::uint64_t length) {
  twins.expect(0, bind(mock));
  twins.expect(0, ioas_alloc());
  twins.expect(0, hwpt_alloc(mock, 0, kDirtyTracking));
  twins.expect(0, map(0, 0, length, kIova));
  twins.expect(0, set_dirty_tracking(0));
  twins.expect(0, write_page(0, kIova));
}

// A leaf of 2 MiB is two entries of the mock driver's format, and the bits of the second one are left out.
bool dirty_bitmap_lacks_half_a_page(const Guest& guest) {
  Twins twins(guest);
  write_to_tracked_memory(twins, first_mock(guest), 2 * kMiB);
  const Operation read = get_dirty_bitmap(0, kIova, 2 * kMiB);
  twins.expect_that(perform(twins.simulator(), read).errno_value == ENOTRECOVERABLE, "the simulator knows");
  const Reply seen = perform(twins.linux_kernel(), read);
  std::size_t dirty = 0;
  for (const std::uint64_t word : seen.words) dirty += static_cast<std::size_t>(std::popcount(word));
  twins.expect_that(dirty == 256, "256 of 512 dirty pages are told: " + std::to_string(dirty));
  return twins.agree();
}

// One page of a leaf of 1 MiB is asked for, and bits of pages behind it come too.
bool dirty_bitmap_overruns_its_range(const Guest& guest) {
  Twins twins(guest);
  write_to_tracked_memory(twins, first_mock(guest), kMiB);
  const Operation read = get_dirty_bitmap(0, kIova + kMiB / 2, 4096);
  twins.expect_that(perform(twins.simulator(), read).errno_value == ENOTRECOVERABLE, "the simulator knows");
  const Reply seen = perform(twins.linux_kernel(), read);
  twins.expect_that(seen.words == std::vector<std::uint64_t>{~std::uint64_t{0}}, "bits are set behind the range");
  return twins.agree();
}

// Asks the simulator, which must know; then Linux, which must not come back.
Outcome kills_linux(Twins& twins, const std::string& name, const Operation& replace) {
  if (!twins.agree()) return {false, "the way there failed"};
  const int simulated = perform(twins.simulator(), replace).errno_value;
  if (simulated != ENOTRECOVERABLE) return {false, "the simulator says errno " + std::to_string(simulated)};
  std::printf("SENT %s\n", name.c_str());
  std::fflush(stdout);
  const Reply reply = perform(twins.linux_kernel(), replace);
  return {false, "Linux survived a replace across owners (errno " + std::to_string(reply.errno_value) + "): KR 2.4 H3 has changed"};
}

}  // namespace

Outcome hazards(const Guest& guest) {
  struct Hazard {
    const char* name;
    bool (*holds)(const Guest&);
  };
  static constexpr Hazard kHazards[] = {{"H1: a refused replace blocks DMA", refused_replace_blocks_dma},
                                        {"H1: a good replace repairs", good_replace_repairs},
                                        {"H1: a refused attach is harmless", refused_attach_is_harmless},
                                        {"H2: refused replaces free the MSI window", refused_replaces_free_the_msi_window},
                                        {"a dirty bitmap lacks half a page", dirty_bitmap_lacks_half_a_page},
                                        {"a dirty bitmap overruns its range", dirty_bitmap_overruns_its_range}};
  unsigned failed = 0;
  for (const Hazard& hazard : kHazards) {
    if (hazard.holds(guest)) continue;
    std::printf("  failed: %s\n", hazard.name);
    ++failed;
  }
  return {failed == 0, std::to_string(std::size(kHazards) - failed) + " of " + std::to_string(std::size(kHazards)) + " as KR 2.4, README.md and the simulator say"};
}

Outcome h3_mock_onto_pci(const Guest& guest) {
  const unsigned edu = first_edu(guest), mock = first_mock(guest);
  Twins twins(guest);
  twins.expect(0, bind(edu));
  twins.expect(0, bind(mock));
  twins.expect(0, ioas_alloc());
  twins.expect(0, hwpt_alloc(edu, 0));
  return kills_linux(twins, "h3_mock_onto_pci", attach_hwpt(mock, 0));
}

Outcome h3_pci_onto_mock(const Guest& guest) {
  const unsigned edu = first_edu(guest), mock = first_mock(guest);
  Twins twins(guest);
  twins.expect(0, bind(edu));
  twins.expect(0, bind(mock));
  twins.expect(0, ioas_alloc());
  twins.expect(0, ioas_alloc());
  twins.expect(0, hwpt_alloc(mock, 0));
  twins.expect(0, attach_ioas(edu, 1));
  return kills_linux(twins, "h3_pci_onto_mock", attach_hwpt(edu, 0));
}

}  // namespace ioplan::kernel_test
