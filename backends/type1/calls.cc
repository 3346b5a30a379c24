#include "backends/type1/calls.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace ioplan::type1 {

namespace {

constexpr std::size_t kUsualInfo = 256;  // bytes; the capabilities of a real container take about 120

template <class T>
T sized() {
  T request{};
  request.argsz = sizeof(T);
  return request;
}

std::uintptr_t pointer(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

template <class T>
std::optional<T> read_at(const std::vector<std::byte>& answer, std::size_t offset) {
  if (offset > answer.size() || answer.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, answer.data() + offset, sizeof(T));
  return value;
}

bool take_ranges(const std::vector<std::byte>& answer, std::size_t offset, ContainerInfo& info) {
  const auto head = read_at<uapi::vfio_iommu_type1_info_cap_iova_range>(answer, offset);
  if (!head) return false;
  info.ranges.emplace();
  for (std::uint32_t r = 0; r < head->nr_iovas; ++r) {
    const auto range =
        read_at<uapi::vfio_iova_range>(answer, offset + sizeof(*head) + r * sizeof(uapi::vfio_iova_range));
    if (!range || range->start > range->end) return false;
    info.ranges->push_back({range->start, range->end});
  }
  return true;
}

bool take_entries(const std::vector<std::byte>& answer, std::size_t offset, ContainerInfo& info) {
  const auto avail = read_at<uapi::vfio_iommu_type1_info_dma_avail>(answer, offset);
  if (avail) info.entries = avail->avail;
  return avail.has_value();
}

// The chain of capabilities; each names the next, further on in the answer.
bool take_capabilities(const std::vector<std::byte>& answer, std::size_t offset, ContainerInfo& info) {
  while (offset != 0) {
    const auto header = read_at<uapi::vfio_info_cap_header>(answer, offset);
    if (!header) return false;
    if (header->id == uapi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE && !take_ranges(answer, offset, info)) return false;
    if (header->id == uapi::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL && !take_entries(answer, offset, info)) return false;
    if (header->next != 0 && header->next <= offset) return false;
    offset = header->next;
  }
  return true;
}

}  // namespace

Reply<int> get_api_version(System& system, int container) {
  return system.ask(container, uapi::VFIO_GET_API_VERSION, 0);
}

Reply<bool> check_extension(System& system, int container, std::uint32_t extension) {
  const auto answer = system.ask(container, uapi::VFIO_CHECK_EXTENSION, extension);
  if (!answer) return tl::make_unexpected(answer.error());
  return *answer > 0;
}

Reply<void> set_iommu(System& system, int container, std::uint32_t type) {
  const auto answer = system.ask(container, uapi::VFIO_SET_IOMMU, type);
  if (!answer) return tl::make_unexpected(answer.error());
  return {};
}

// The kernel answers with the size that it needs when it was given less.
Reply<ContainerInfo> get_info(System& system, int container) {
  std::vector<std::byte> answer(kUsualInfo);
  for (;;) {
    uapi::vfio_iommu_type1_info head{};
    head.argsz = static_cast<std::uint32_t>(answer.size());
    std::memcpy(answer.data(), &head, sizeof(head));
    const auto done = system.ioctl(container, uapi::VFIO_IOMMU_GET_INFO, answer.data());
    if (!done) return tl::make_unexpected(done.error());
    std::memcpy(&head, answer.data(), sizeof(head));
    if (head.argsz > answer.size()) {
      answer.assign(head.argsz, std::byte{0});
      continue;
    }
    ContainerInfo info;
    info.page_sizes = head.iova_pgsizes;
    const bool chained = (head.flags & uapi::VFIO_IOMMU_INFO_CAPS) != 0;
    if (chained && !take_capabilities(answer, head.cap_offset, info)) return fails_with(EBADMSG);
    return info;
  }
}

Reply<void> map_dma(System& system, int container, const Dma& dma) {
  auto request = sized<uapi::vfio_iommu_type1_dma_map>();
  request.flags = dma.flags;
  request.vaddr = dma.address;
  request.iova = dma.iova.start;
  request.size = dma.iova.extent() + 1;
  return system.ioctl(container, uapi::VFIO_IOMMU_MAP_DMA, &request);
}

Reply<std::uint64_t> unmap_dma(System& system, int container, const Range& iova) {
  auto request = sized<uapi::vfio_iommu_type1_dma_unmap>();
  request.iova = iova.start;
  request.size = iova.extent() + 1;
  const auto done = system.ioctl(container, uapi::VFIO_IOMMU_UNMAP_DMA, &request);
  if (!done) return tl::make_unexpected(done.error());
  return request.size;
}

Reply<std::uint32_t> group_status(System& system, int group) {
  auto request = sized<uapi::vfio_group_status>();
  const auto done = system.ioctl(group, uapi::VFIO_GROUP_GET_STATUS, &request);
  if (!done) return tl::make_unexpected(done.error());
  return request.flags;
}

Reply<void> set_container(System& system, int group, int container) {
  const std::int32_t descriptor = container;
  const auto answer = system.ask(group, uapi::VFIO_GROUP_SET_CONTAINER, pointer(&descriptor));
  if (!answer) return tl::make_unexpected(answer.error());
  return {};
}

Reply<void> unset_container(System& system, int group) {
  const auto answer = system.ask(group, uapi::VFIO_GROUP_UNSET_CONTAINER, 0);
  if (!answer) return tl::make_unexpected(answer.error());
  return {};
}

Reply<int> get_device_fd(System& system, int group, const std::string& device) {
  return system.ask(group, uapi::VFIO_GROUP_GET_DEVICE_FD, pointer(device.c_str()));
}

}  // namespace ioplan::type1
