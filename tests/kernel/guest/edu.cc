#include "tests/kernel/guest/edu.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "backends/vfio/uapi.h"

namespace ioplan::kernel_test {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kOwnBuffer = 0x40000;
constexpr std::uint64_t kSource = 0x80, kDestination = 0x88, kCount = 0x90, kCommand = 0x98;
constexpr std::uint64_t kRun = 1, kToMemory = 2;
constexpr std::uint32_t kBar0 = 0, kConfig = 7;            // VFIO_PCI_*_REGION_INDEX
constexpr std::uint64_t kPciCommand = 4;                   // of the configuration space
constexpr std::uint16_t kMemory = 2, kBusMaster = 4;

std::optional<std::uint64_t> region_offset(int device, std::uint32_t index) {
  uapi::vfio_region_info info{.argsz = sizeof info, .flags = 0, .index = index, .cap_offset = 0, .size = 0, .offset = 0};
  if (ioctl(device, uapi::VFIO_DEVICE_GET_REGION_INFO, &info) < 0 || info.size == 0) return std::nullopt;
  return info.offset;
}

bool enable(int device) {
  const auto config = region_offset(device, kConfig);
  if (!config) return false;
  const auto at = static_cast<off_t>(*config + kPciCommand);
  std::uint16_t command = 0;
  if (pread(device, &command, sizeof command, at) != sizeof command) return false;
  command |= kMemory | kBusMaster;
  return pwrite(device, &command, sizeof command, at) == sizeof command;
}

}  // namespace

bool Edu::is_edu(const Device& device) {
  return device.facts[DeviceFact::vendor] == 0x1234 && device.facts[DeviceFact::device] == 0x11e8;
}

std::optional<Edu> Edu::open(int device) {
  const auto bar = region_offset(device, kBar0);
  if (!bar || !enable(device)) return std::nullopt;
  void* page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, device, static_cast<off_t>(*bar));
  if (page == MAP_FAILED) return std::nullopt;  // NOLINT
  return Edu(static_cast<volatile std::uint64_t*>(page));
}

Edu::Edu(Edu&& other) noexcept : registers_(std::exchange(other.registers_, nullptr)) {}

Edu::~Edu() {
  if (registers_ != nullptr) munmap(const_cast<std::uint64_t*>(registers_), kPage);
}

bool Edu::read_memory(std::uint64_t iova, std::uint64_t bytes) { return transfer(iova, kOwnBuffer, bytes, kRun); }
bool Edu::write_memory(std::uint64_t iova, std::uint64_t bytes) { return transfer(kOwnBuffer, iova, bytes, kRun | kToMemory); }

bool Edu::transfer(std::uint64_t from, std::uint64_t to, std::uint64_t bytes, std::uint64_t command) {
  at(kSource) = from;
  at(kDestination) = to;
  at(kCount) = bytes;
  at(kCommand) = command;
  for (unsigned tries = 0; tries < 10'000; ++tries) {
    if ((at(kCommand) & kRun) == 0) return true;
    usleep(1000);
  }
  return false;
}

}  // namespace ioplan::kernel_test
