#include "backends/iommufd/lent_descriptor.h"

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "backends/iommufd/calls.h"
#include "backends/vfio/refusal.h"

namespace ioplan::iommufd {

namespace {

tl::unexpected<Error> wrong(int fd, std::string_view what, int errno_value) {
  if (errno_value == EBADF) {
    return failure(fmt::format("descriptor {}, passed as {}, is not open", fd, what),
                   "a parent must leave it open across exec: without FD_CLOEXEC");
  }
  return failure(fmt::format("descriptor {} is not {}", fd, what));
}

// ".../0000:01:00.0/vfio-dev/vfio0" -> "0000:01:00.0"; empty when it is nothing of the kind.
std::string owner_of(std::string_view node) {
  const std::size_t at = node.rfind("/vfio-dev/");
  if (at == std::string_view::npos) return {};
  const std::string_view device = node.substr(0, at);
  return std::string(device.substr(device.rfind('/') + 1));
}

bool same_device(std::string_view id, std::string_view owner) {
  return id == owner || (owner.starts_with("0000:") && owner.substr(5) == id);  // PCI addresses without their segment
}

}  // namespace

Result<void> require_iommu(System& system, int fd) {
  const auto mode = get_rlimit_mode(system, fd);
  if (!mode) return wrong(fd, "/dev/iommu", mode.error().value);
  return {};
}

Result<void> require_unbound_device(System& system, const std::string& id, int fd) {
  const std::string what = "the VFIO device " + id;
  const auto identity = system.identify(fd);
  if (!identity) return wrong(fd, what, identity.error().value);
  const auto info = vfio_get_info(system, fd);
  if (identity->node == 0 || (!info && info.error().value != EINVAL)) return wrong(fd, what, ENOTTY);
  if (info) {
    return failure(fmt::format("descriptor {} of {} is bound already", fd, id),
                   "pass one that was opened anew, from /dev/vfio/devices");
  }
  const auto node = system.read_link(fmt::format("/sys/dev/char/{}:{}", major(identity->node), minor(identity->node)));
  const std::string owner = node ? owner_of(*node) : "";
  if (owner.empty() || same_device(id, owner)) return {};
  return failure(fmt::format("descriptor {} is of {}, not of {}", fd, owner, id));
}

}  // namespace ioplan::iommufd
