#include "backends/iommufd/calls.h"

#include <cerrno>

namespace ioplan::iommufd {

namespace {

constexpr std::uint32_t kFewRanges = 32;  // first guess: a real IOAS has two to four

template <class T>
T sized() {
  T request{};
  request.size = sizeof(T);
  return request;
}

template <class T>
T vfio_sized() {
  T request{};
  request.argsz = sizeof(T);
  return request;
}

std::uint64_t pointer(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

template <class Request, class Value>
Reply<Value> answer(const Reply<void>& done, const Request& request, Value Request::*value) {
  if (!done) return tl::make_unexpected(done.error());
  return request.*value;
}

}  // namespace

Reply<ObjectId> ioas_alloc(System& system, int iommu) {
  auto request = sized<uapi::iommu_ioas_alloc>();
  return answer(system.ioctl(iommu, uapi::IOMMU_IOAS_ALLOC, &request), request, &uapi::iommu_ioas_alloc::out_ioas_id);
}

Reply<void> ioas_allow_iovas(System& system, int iommu, ObjectId ioas, const std::vector<Range>& ranges) {
  std::vector<uapi::iommu_iova_range> list;
  for (const Range& r : ranges) list.push_back({r.start, r.last});
  auto request = sized<uapi::iommu_ioas_allow_iovas>();
  request.ioas_id = ioas;
  request.num_iovas = static_cast<std::uint32_t>(list.size());
  request.allowed_iovas = pointer(list.data());
  return system.ioctl(iommu, uapi::IOMMU_IOAS_ALLOW_IOVAS, &request);
}

// The kernel answers EMSGSIZE and the count that it needs; between two calls the count may grow again.
Reply<IovaRanges> ioas_iova_ranges(System& system, int iommu, ObjectId ioas) {
  std::vector<uapi::iommu_iova_range> list(kFewRanges);
  for (;;) {
    auto request = sized<uapi::iommu_ioas_iova_ranges>();
    request.ioas_id = ioas;
    request.num_iovas = static_cast<std::uint32_t>(list.size());
    request.allowed_iovas = pointer(list.data());
    const auto done = system.ioctl(iommu, uapi::IOMMU_IOAS_IOVA_RANGES, &request);
    const bool more = !done && done.error().value == EMSGSIZE && request.num_iovas > list.size();
    if (!done && !more) return tl::make_unexpected(done.error());
    list.resize(request.num_iovas);
    if (more) continue;
    IovaRanges found;
    for (const auto& r : list) found.ranges.push_back({r.start, r.last});
    found.alignment = request.out_iova_alignment;
    return found;
  }
}

Reply<void> ioas_map(System& system, int iommu, ObjectId ioas, const Mapping& mapping, std::uint64_t user_address) {
  auto request = sized<uapi::iommu_ioas_map>();
  request.flags = mapping.flags;
  request.ioas_id = ioas;
  request.user_va = user_address;
  request.length = mapping.length;
  request.iova = mapping.iova;
  return system.ioctl(iommu, uapi::IOMMU_IOAS_MAP, &request);
}

Reply<void> ioas_map_file(System& system, int iommu, ObjectId ioas, const Mapping& mapping, int fd,
                          std::uint64_t offset) {
  auto request = sized<uapi::iommu_ioas_map_file>();
  request.flags = mapping.flags;
  request.ioas_id = ioas;
  request.fd = fd;
  request.start = offset;
  request.length = mapping.length;
  request.iova = mapping.iova;
  return system.ioctl(iommu, uapi::IOMMU_IOAS_MAP_FILE, &request);
}

Reply<void> ioas_copy(System& system, int iommu, ObjectId ioas, const Mapping& mapping, ObjectId source,
                      std::uint64_t source_iova) {
  auto request = sized<uapi::iommu_ioas_copy>();
  request.flags = mapping.flags;
  request.dst_ioas_id = ioas;
  request.src_ioas_id = source;
  request.length = mapping.length;
  request.dst_iova = mapping.iova;
  request.src_iova = source_iova;
  return system.ioctl(iommu, uapi::IOMMU_IOAS_COPY, &request);
}

Reply<std::uint64_t> ioas_unmap(System& system, int iommu, ObjectId ioas, std::uint64_t iova, std::uint64_t length) {
  auto request = sized<uapi::iommu_ioas_unmap>();
  request.ioas_id = ioas;
  request.iova = iova;
  request.length = length;
  return answer(system.ioctl(iommu, uapi::IOMMU_IOAS_UNMAP, &request), request, &uapi::iommu_ioas_unmap::length);
}

Reply<ObjectId> hwpt_alloc(System& system, int iommu, ObjectId device, ObjectId ioas, std::uint32_t flags) {
  auto request = sized<uapi::iommu_hwpt_alloc>();
  request.flags = flags;
  request.dev_id = device;
  request.pt_id = ioas;
  return answer(system.ioctl(iommu, uapi::IOMMU_HWPT_ALLOC, &request), request, &uapi::iommu_hwpt_alloc::out_hwpt_id);
}

Reply<void> set_dirty_tracking(System& system, int iommu, ObjectId hwpt, DirtyTracking tracking) {
  auto request = sized<uapi::iommu_hwpt_set_dirty_tracking>();
  request.flags = tracking == DirtyTracking::on ? uapi::IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0;
  request.hwpt_id = hwpt;
  return system.ioctl(iommu, uapi::IOMMU_HWPT_SET_DIRTY_TRACKING, &request);
}

Reply<void> get_dirty_bitmap(System& system, int iommu, ObjectId hwpt, const DirtyRequest& wanted,
                             std::uint64_t* words) {
  auto request = sized<uapi::iommu_hwpt_get_dirty_bitmap>();
  request.hwpt_id = hwpt;
  request.flags = wanted.flags;
  request.iova = wanted.iova;
  request.length = wanted.length;
  request.page_size = wanted.page;
  request.data = pointer(words);
  return system.ioctl(iommu, uapi::IOMMU_HWPT_GET_DIRTY_BITMAP, &request);
}

Reply<void> destroy(System& system, int iommu, ObjectId object) {
  auto request = sized<uapi::iommu_destroy>();
  request.id = object;
  return system.ioctl(iommu, uapi::IOMMU_DESTROY, &request);
}

Reply<HwInfo> get_hw_info(System& system, int iommu, ObjectId device) {
  HwInfo info;
  auto request = sized<uapi::iommu_hw_info>();
  request.dev_id = device;
  request.data_len = sizeof(info.data);
  request.data_uptr = pointer(info.data.data());
  const auto done = system.ioctl(iommu, uapi::IOMMU_GET_HW_INFO, &request);
  if (!done) return tl::make_unexpected(done.error());
  info.type = request.out_data_type;
  return info;
}

Reply<std::uint64_t> get_rlimit_mode(System& system, int iommu) {
  auto request = sized<uapi::iommu_option>();
  request.option_id = uapi::IOMMU_OPTION_RLIMIT_MODE;
  request.op = uapi::IOMMU_OPTION_OP_GET;
  return answer(system.ioctl(iommu, uapi::IOMMU_OPTION, &request), request, &uapi::iommu_option::val64);
}

Reply<void> set_rlimit_mode(System& system, int iommu, std::uint64_t mode) {
  auto request = sized<uapi::iommu_option>();
  request.option_id = uapi::IOMMU_OPTION_RLIMIT_MODE;
  request.op = uapi::IOMMU_OPTION_OP_SET;
  request.val64 = mode;
  return system.ioctl(iommu, uapi::IOMMU_OPTION, &request);
}

Reply<void> vfio_get_info(System& system, int device) {
  auto request = vfio_sized<uapi::vfio_device_info>();
  return system.ioctl(device, uapi::VFIO_DEVICE_GET_INFO, &request);
}

Reply<ObjectId> vfio_bind(System& system, int device, int iommu) {
  auto request = vfio_sized<uapi::vfio_device_bind_iommufd>();
  request.iommufd = iommu;
  return answer(system.ioctl(device, uapi::VFIO_DEVICE_BIND_IOMMUFD, &request), request,
                &uapi::vfio_device_bind_iommufd::out_devid);
}

Reply<ObjectId> vfio_attach(System& system, int device, ObjectId pt) {
  auto request = vfio_sized<uapi::vfio_device_attach_iommufd_pt>();
  request.pt_id = pt;
  return answer(system.ioctl(device, uapi::VFIO_DEVICE_ATTACH_IOMMUFD_PT, &request), request,
                &uapi::vfio_device_attach_iommufd_pt::pt_id);
}

Reply<void> vfio_detach(System& system, int device) {
  auto request = vfio_sized<uapi::vfio_device_detach_iommufd_pt>();
  return system.ioctl(device, uapi::VFIO_DEVICE_DETACH_IOMMUFD_PT, &request);
}

}  // namespace ioplan::iommufd
