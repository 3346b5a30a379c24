// How the kernel's no is told: what was tried, errno in words and by name, and what that errno means at this call.
// Held by tests/iommufd_backend_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/error.h"

namespace ioplan::vfio {

// What was asked of the kernel.
enum class Call : std::uint8_t {
  open_iommu,
  open_device,
  bind,
  kvm_file,
  hw_info,
  accounting,
  ioas_alloc,
  iova_ranges,
  allow_iovas,
  hwpt_alloc,
  attach,
  replace,
  detach,
  map,
  copy,
  unmap,
  dirty,
  destroy,
  memory,
  sysfs,
  open_container,
  open_group,
  group_status,
  set_container,
  set_iommu,
  device_fd,
  container_info,
  unset_container,
  map_dma,
  unmap_dma
};

// "Invalid argument (EINVAL)"
std::string errno_text(int errno_value);

// What usually is the reason (KR 1.4, 2.1, 2.2, 2.5, 2.6, 2.8) and what to do; empty when nothing is known.
std::string_view likely_reason(Call call, int errno_value);

// "attach of 0000:01:00.0 to hwpt0: Invalid argument (EINVAL)" with the likely reason as help.
tl::unexpected<Error> refused(Call call, std::string_view what, int errno_value);

}  // namespace ioplan::vfio
