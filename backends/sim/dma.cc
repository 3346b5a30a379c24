// Devices' accesses: from the requester to its domain, through the hardware walker, to the bytes.

#include <algorithm>
#include <cerrno>

#include "backends/sim/machine_state.h"

namespace ioplan::sim {

namespace {

constexpr std::string_view kNotBound = "nobody has bound the device";
constexpr std::string_view kBlocked = "DMA is blocked: the device is attached to nothing";
constexpr std::string_view kHazard = "DMA is blocked: a replace was refused after the old translation was gone (H1)";
constexpr std::string_view kNoPasid = "DMA is blocked: the PASID is attached to nothing";

bool is_doorbell(std::uint64_t pa, std::uint64_t page_size) { return pa >= kDoorbellPage && pa < kDoorbellPage + page_size; }

}  // namespace

// What the unit does with a request of this device.
Answer<Translation> Machine::State::translate(const DeviceState& device, std::uint32_t pasid, std::uint64_t iova,
                                              DmaAccess access) const {
  if (device.group == nullptr || device.group->owner == nullptr) return refuse(EFAULT, kNotBound);
  const Domain* domain = device.domain;
  if (pasid != 0) {
    const auto attached = device.pasids.find(pasid);
    if (attached == device.pasids.end()) return refuse(EFAULT, kNoPasid);
    domain = attached->second;
  }
  if (domain == nullptr) return refuse(EFAULT, device.group->domain != nullptr ? kHazard : kBlocked);
  const Translation translation = domain->translate(tables, iova, access);
  if (!translation.fault.empty()) return refuse(EFAULT, translation.fault);
  return translation;
}

namespace {

// One page after the other: `move` takes a physical address and part of the bytes, false when there is no memory.
template <class Translate, class Bytes, class Move>
Answer<void> each_page(std::uint64_t iova, Bytes bytes, Translate translate, Move move) {
  while (!bytes.empty()) {
    const Answer<Translation> t = translate(iova);
    if (!t) return tl::make_unexpected(t.error());
    const std::uint64_t rest = t->page_size - (iova & (t->page_size - 1));
    const auto part = bytes.first(std::min<std::uint64_t>(bytes.size(), rest));
    if (!move(t->pa, part)) return refuse(EFAULT, "the table leads to where there is no memory");
    bytes = bytes.subspan(part.size());
    iova += part.size();
  }
  return {};
}

}  // namespace

Answer<void> Machine::dma_read(std::string_view device, std::uint64_t iova, std::span<std::byte> bytes,
                               std::uint32_t pasid) {
  const auto index = state_->host.find_device(device);
  if (!index) return refuse(ENODEV, "there is no such device");
  const auto translate = [&](std::uint64_t at) {
    return state_->translate(state_->core.device(*index), pasid, at, DmaAccess::read);
  };
  return each_page(iova, bytes, translate, [&](std::uint64_t pa, std::span<std::byte> part) {
    if (!is_doorbell(pa, state_->core.kernel_page_size())) return state_->memory.read(pa, part);
    std::ranges::fill(part, std::byte{0});
    return true;
  });
}

Answer<void> Machine::dma_write(std::string_view device, std::uint64_t iova, std::span<const std::byte> bytes,
                                std::uint32_t pasid) {
  const auto index = state_->host.find_device(device);
  if (!index) return refuse(ENODEV, "there is no such device");
  const auto translate = [&](std::uint64_t at) {
    return state_->translate(state_->core.device(*index), pasid, at, DmaAccess::write);
  };
  return each_page(iova, bytes, translate, [&](std::uint64_t pa, std::span<const std::byte> part) {
    return is_doorbell(pa, state_->core.kernel_page_size()) || state_->memory.write(pa, part);
  });
}

}  // namespace ioplan::sim
