#include "backends/vfio/kvm_file.h"

namespace ioplan::vfio {

Reply<void> set_kvm_file(System& system, int kvm, KvmFile what, int file) {
  std::int32_t descriptor = file;
  uapi::kvm_device_attr attribute{0, uapi::KVM_DEV_VFIO_FILE, static_cast<std::uint64_t>(what),
                                  reinterpret_cast<std::uintptr_t>(&descriptor)};
  return system.ioctl(kvm, uapi::KVM_SET_DEVICE_ATTR, &attribute);
}

}  // namespace ioplan::vfio
