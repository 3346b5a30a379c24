// KVM's knowledge of VFIO files: by which it tells whether a VM's DMA may be non-coherent (KR 5.2).
// Source: virt/kvm/vfio.c. Held by tests/iommufd_changes_test.cc and tests/type1_backend_test.cc.
#pragma once

#include "backends/vfio/system.h"
#include "backends/vfio/uapi.h"

namespace ioplan::vfio {

// Tells KVM of a VFIO file, a device's or a group's, or no more. `kvm`: KVM's VFIO device of a VM. ADD: EEXIST when it knows the file; DEL: ENOENT.
enum class KvmFile : std::uint64_t { add = uapi::KVM_DEV_VFIO_FILE_ADD, del = uapi::KVM_DEV_VFIO_FILE_DEL };
Reply<void> set_kvm_file(System& system, int kvm, KvmFile what, int file);

}  // namespace ioplan::vfio
