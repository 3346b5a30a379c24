// DMA that arrives: `edu` devices of the guest go into a VM whose plan backends/iommufd carries out; their engines then
// read and write the VM's memory at planned IOVAs, and everything else must stop it.
//
// The memory is ours, lent to the backend, and has a shadow: after each step all of it is compared, byte for byte. What
// the IOMMU stops must be in the kernel's log.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <random>

#include "backends/iommufd/iommufd_backend.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/planner/planner.h"
#include "tests/kernel/guest/case.h"
#include "tests/kernel/guest/edu.h"
#include "tests/kernel/guest/kernel_log.h"

namespace ioplan::kernel_test {

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20, kHigh = std::uint64_t{1} << 32;

// RAM below and above 4 GiB, a read-only part between them, and holes around all.
std::vector<MemoryRange> layout() {
  return {{{0, 8 * kMiB - 1}, Access::read_write},
          {{8 * kMiB, 9 * kMiB - 1}, Access::read_only},
          {{kHigh, kHigh + 4 * kMiB - 1}, Access::read_write}};
}

// One range of the VM's memory: a file, our view of it, and what should be in it.
class Memory {
 public:
  Memory(const Range& gpa, std::mt19937_64& random) : gpa_(gpa), shadow_(gpa.extent() + 1) {
    for (unsigned char& byte : shadow_) byte = static_cast<unsigned char>(random());
    file_ = memfd_create("memory", MFD_CLOEXEC);
    if (ftruncate(file_, static_cast<off_t>(shadow_.size())) != 0) return;
    view_ = static_cast<unsigned char*>(mmap(nullptr, shadow_.size(), PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0));
    std::memcpy(view_, shadow_.data(), shadow_.size());
  }
  ~Memory() {
    munmap(view_, shadow_.size());
    close(file_);
  }
  Memory(const Memory&) = delete;

  int file() const { return file_; }
  const Range& gpa() const { return gpa_; }
  unsigned char& should_be(std::uint64_t gpa) { return shadow_[gpa - gpa_.start]; }
  bool is_as_it_should_be() const { return std::memcmp(view_, shadow_.data(), shadow_.size()) == 0; }

 private:
  Range gpa_;
  std::vector<unsigned char> shadow_;
  int file_ = -1;
  unsigned char* view_ = nullptr;
};

class GuestRam {
 public:
  explicit GuestRam(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (const MemoryRange& range : layout()) parts_.push_back(std::make_unique<Memory>(range.gpa, random));
  }

  Memory* at(std::uint64_t gpa) {
    for (const auto& part : parts_) {
      if (part->gpa().contains({gpa, gpa})) return part.get();
    }
    return nullptr;
  }
  void copy(std::uint64_t from, std::uint64_t to, std::uint64_t bytes) {
    for (std::uint64_t i = 0; i < bytes; ++i) at(to + i)->should_be(to + i) = at(from + i)->should_be(from + i);
  }
  bool is_as_it_should_be() const {
    for (const auto& part : parts_) {
      if (!part->is_as_it_should_be()) return false;
    }
    return true;
  }

 private:
  std::vector<std::unique_ptr<Memory>> parts_;
};

// One device's transfers.
class Trial {
 public:
  // `driver` of its IOMMU: QEMU 7.2's amd-iommu blocks and raises no event that Linux would log.
  Trial(const Device& device, Driver driver, Edu edu, GuestRam& ram)
      : name_(device.id), edu_(std::move(edu)), ram_(ram), logs_faults_(driver != Driver::amd) {}

  // Memory to memory by way of the device: the bytes at `to` become those at `from`.
  void arrives(std::uint64_t from, std::uint64_t to, std::uint64_t bytes) {
    const bool ended = edu_.read_memory(from, bytes) && edu_.write_memory(to, bytes);
    ram_.copy(from, to, bytes);
    judge(ended && ram_.is_as_it_should_be(), "does not arrive", to);
  }

  // The device writes `bytes` from `from`; only the first `allowed` of them may arrive at `to`.
  void is_stopped(std::uint64_t from, std::uint64_t to, std::uint64_t bytes, std::uint64_t allowed) {
    bool ended = edu_.read_memory(from, bytes);
    const std::string line = fault(to + allowed, [&] { ended = edu_.write_memory(to, bytes) && ended; });
    if (allowed > 0) ram_.copy(from, to, allowed);
    judge(ended && ram_.is_as_it_should_be(), "is not stopped", to);
    judge_log(line, to);
  }

  void read_is_stopped(std::uint64_t from) {
    bool ended = true;
    const std::string line = fault(from, [&] { ended = edu_.read_memory(from, 8) && ended; });
    judge(ended, "does not end", from);
    judge_log(line, from);
  }

  unsigned good() const { return good_; }
  unsigned bad() const { return bad_; }

 private:
  void judge(bool well, const char* otherwise, std::uint64_t iova) {
    ++(well ? good_ : bad_);
    if (!well) std::printf("  DMA of %s at 0x%" PRIx64 " %s\n", name_.c_str(), iova, otherwise);
  }

  // What the kernel logs of the fault. Several tries: QEMU drops a fault while an earlier one of the device is not yet
  // read.
  template <class Transfer>
  std::string fault(std::uint64_t iova, Transfer transfer) {
    char page[32];
    std::snprintf(page, sizeof page, "%" PRIx64, iova & ~std::uint64_t{0xfff});
    std::string line;
    for (unsigned tries = 0; tries < 6 && line.empty(); ++tries) {
      KernelLog log;
      transfer();
      line = log.wait_for("ault", page);
      if (!logs_faults_) break;
    }
    return line;
  }

  void judge_log(const std::string& line, std::uint64_t iova) {
    if (logs_faults_) judge(!line.empty(), "leaves no fault in the log", iova);
    if (!line.empty()) std::printf("  %s\n", line.c_str());
  }

  std::string name_;
  Edu edu_;
  GuestRam& ram_;
  bool logs_faults_;
  unsigned good_ = 0, bad_ = 0;
};

void try_all(Trial& trial) {
  constexpr std::uint64_t kBytes = Edu::kBuffer;
  trial.arrives(0, kHigh, kBytes);                                      // the first bytes of both
  trial.arrives(kHigh + 4 * kMiB - kBytes, 8 * kMiB - kBytes, kBytes);  // the last ones
  trial.arrives(0x3f0123, 0x1fffa0, kBytes);                            // over page borders, odd addresses
  trial.arrives(8 * kMiB + 0x801, kHigh + 0x200ffd, 1001);              // out of read-only memory
  trial.read_is_stopped(16 * kMiB);
  trial.is_stopped(0x1000, 8 * kMiB + 0x3000, 8, 0);              // into read-only memory
  trial.is_stopped(0x2000, 9 * kMiB, 8, 0);                       // behind it, where nothing is
  trial.is_stopped(0x4000, kHigh + 4 * kMiB - 1024, 1032, 1024);  // the last bytes over the end
}

// What is behind QEMU's PCI bridge never gets its DMA through an IOMMU of Linux's (README.md).
bool is_edu_on_the_root_bus(const Device& device) { return Edu::is_edu(device) && device.id.starts_with("0000:00:"); }

VirtualMachine vm_with(const Guest& guest, const std::vector<unsigned>& devices) {
  VirtualMachine vm;
  vm.name = "vm";
  vm.memory.ranges = layout();
  for (const unsigned d : devices) {
    AssignedDevice assigned;
    assigned.host = DeviceIndex(d);
    assigned.name = guest.host.devices[d].id;
    vm.devices.push_back(assigned);
  }
  return vm;
}

}  // namespace

Outcome edu_dma(const Guest& guest) {
  std::vector<unsigned> devices = guest.pci;
  std::erase_if(devices, [&](unsigned d) { return !is_edu_on_the_root_bus(guest.host.devices[d]); });
  Request request;
  request.host = guest.host;
  request.vms.push_back(vm_with(guest, devices));
  const Plan plan = make_plan(request, kernel_law());

  GuestRam ram(guest.seed);
  const auto system = vfio::linux_system();
  iommufd::IommufdOptions options;
  options.memory = [&](const PlannedIoas&, const MemoryRange& range) -> Result<vfio::LentMemory> {
    return vfio::LentMemory{ram.at(range.gpa.start)->file(), 0};
  };
  iommufd::IommufdBackend backend(*system, guest.host, options);
  if (const ApplyReport report = apply_plan(plan, guest.host, backend); report.outcome != ApplyOutcome::done) {
    return {false, "the plan was not applied: " + (report.error ? to_text(*report.error) : "no reason given")};
  }

  unsigned good = 0, bad = 0;
  for (const unsigned d : devices) {
    const Device& device = guest.host.devices[d];
    auto edu = Edu::open(*backend.device_descriptor(device.id));
    if (!edu) return {false, device.id + " has no BAR to drive it with"};
    Trial trial(device, guest.host.unit(*device.unit).driver, std::move(*edu), ram);
    try_all(trial);
    good += trial.good();
    bad += trial.bad();
  }
  return {bad == 0 && good > 0, std::to_string(good) + " observations of the DMA of " + std::to_string(devices.size()) +
                                    " devices as planned, " + std::to_string(bad) + " not"};
}

}  // namespace ioplan::kernel_test
