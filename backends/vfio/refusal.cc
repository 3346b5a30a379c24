#include "backends/vfio/refusal.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace ioplan::vfio {

namespace {

struct Reason {
  Call call;
  int errno_value;
  std::string_view text;
};

constexpr Reason kReasons[] = {
    {Call::open_iommu, ENOENT,
     "this kernel has no iommufd, or its module is not loaded: `modprobe iommufd`; a kernel built without "
     "CONFIG_IOMMUFD "
     "(Debian's) has VFIO type1 only: `--backend type1`"},
    {Call::open_iommu, EACCES, "run as root, or give /dev/iommu to your user, or pass an open descriptor of it"},
    {Call::open_iommu, EPERM,
     "the container's device policy forbids /dev/iommu: allow it, or pass an open descriptor of it"},
    {Call::open_iommu, ENODEV, "the node is there but iommufd is not: `modprobe iommufd`"},
    {Call::open_device, EACCES, "run as root, or give the node to your user, or pass an open descriptor of the device"},
    {Call::open_device, EPERM,
     "the container's device policy forbids the node: allow it, or pass an open descriptor of the device"},
    {Call::open_device, ENOENT,
     "the node is missing though the kernel has the device: in a container, pass /dev/vfio into it"},
    {Call::open_device, ENODEV, "the device is being unbound from its VFIO driver"},
    {Call::open_device, EBUSY, "the device is open already, by its VFIO group or by another program"},
    {Call::bind, EINVAL,
     "another program has the device open, or a device of its group needs a direct mapping (RMRR, IVMD), or its IOMMU "
     "is not "
     "coherent with the CPU's caches"},
    {Call::bind, EPERM,
     "another program's iommufd owns the device's group, or its interrupts are not isolated (the module option "
     "`iommufd.allow_unsafe_interrupts=1` accepts that)"},
    {Call::bind, EBUSY, "a device of the group is driven by the kernel, or opened by way of its VFIO group"},
    {Call::bind, ENODEV,
     "the device has no IOMMU group: is the IOMMU on? (`intel_iommu=on`, `amd_iommu=on`, firmware setup)"},
    {Call::bind, EBADFD, "the passed descriptor is not one of /dev/iommu"},
    {Call::bind, ENOTTY, "the descriptor is not one of a VFIO device"},
    {Call::accounting, EPERM,
     "choosing how locked memory is counted needs CAP_SYS_RESOURCE; the kernel's default counts by user"},
    {Call::accounting, EBUSY, "this can only be chosen before anything is made: the passed /dev/iommu is in use"},
    {Call::allow_iovas, EADDRINUSE, "a reserved region or an aperture lies in the VM's memory"},
    {Call::allow_iovas, EINVAL, "the plan's ranges overlap or are empty"},
    {Call::hwpt_alloc, EOPNOTSUPP,
     "the IOMMU's driver does not have what the flags ask for: the host document's registers or kernel options are not "
     "this "
     "machine's; capture it again and plan again"},
    {Call::hwpt_alloc, EADDRINUSE,
     "the page table's aperture does not reach all of the VM's memory: plan again for this machine"},
    {Call::hwpt_alloc, EINVAL,
     "the page table's smallest page is larger than the kernel's, or a mapping does not fit its format"},
    {Call::hwpt_alloc, ENODEV, "the driver finds no page table that works for this device"},
    {Call::attach, EINVAL,
     "the IOMMU's driver does not accept this page table for the device (or for another one of its group): the host "
     "document "
     "is not this machine's; capture it again and plan again"},
    {Call::attach, EADDRINUSE,
     "a reserved region of the device lies in the VM's memory: add it to the host document and plan again"},
    {Call::attach, EBUSY, "the device's group is attached elsewhere, or one of its devices is being reset: try again"},
    {Call::attach, ENOSPC, "the IOMMU has no domain id left: other VMs hold them"},
    {Call::attach, ENODEV, "the device is bound to nothing now, or its IOMMU cannot do what the page table needs"},
    {Call::replace, EINVAL,
     "the IOMMU's driver does not accept this page table for the device (or for another one of its group): the host "
     "document is not this machine's; capture it again and plan again"},
    {Call::replace, EADDRINUSE, "a reserved region of the group lies in the VM's memory"},
    {Call::replace, ENOSPC, "the IOMMU has no domain id left: a replace needs one more for a moment"},
    {Call::replace, EBUSY, "one of the group's devices is being reset: try again"},
    {Call::kvm_file, EBADF, "the descriptor is not of a VFIO device"},
    {Call::kvm_file, EINVAL, "KVM takes no such file: is the descriptor one of KVM's VFIO device?"},
    {Call::kvm_file, EEXIST, "KVM has the file already"},
    {Call::kvm_file, ENOENT, "KVM does not have the file"},
    {Call::kvm_file, ENOTTY, "the descriptor is not one of KVM's VFIO device (KVM_CREATE_DEVICE, KVM_DEV_TYPE_VFIO)"},
    {Call::map, ENOMEM,
     "locked memory is over its limit (RLIMIT_MEMLOCK, counted by user), or memory or huge pages are short"},
    {Call::map, EINVAL,
     "the range is reserved, outside of every aperture or not aligned to the IOAS, or the page table takes no "
     "read-only mappings (an Intel nesting parent)"},
    {Call::map, EEXIST, "something is mapped there: the passed /dev/iommu is in use"},
    {Call::map, EFAULT, "the memory cannot be pinned for reading or writing"},
    {Call::map, EPERM, "the memory cannot be pinned for writing"},
    {Call::copy, EINVAL, "the range is reserved, outside of every aperture or not aligned to the IOAS"},
    {Call::copy, EEXIST, "something is mapped there: the passed /dev/iommu is in use"},
    {Call::copy, ENOMEM, "the kernel has no memory left for page tables"},
    {Call::dirty, EOPNOTSUPP, "the page table was allocated without dirty tracking, or its IOMMU has none"},
    {Call::dirty, EINVAL, "the range or the page size is not aligned to the IOAS"},
    {Call::dirty, ENOENT, "somebody else has destroyed it"},
    {Call::dirty, ENOMEM, "the kernel has no memory left to read the bitmap"},
    {Call::unmap, ENOENT, "somebody else has unmapped it"},
    {Call::unmap, EBUSY, "a kernel user of the memory holds on to it"},
    {Call::destroy, EBUSY, "something still uses it"},
    {Call::destroy, ENOENT, "somebody else has destroyed it"},
    {Call::memory, ENOMEM, "memory or huge pages are short"},
    {Call::memory, ENODEV, "this kernel has no huge pages of that size"},
    {Call::memory, EINVAL, "this kernel has no huge pages of that size"},
    {Call::open_container, ENOENT,
     "this kernel has no VFIO containers, or their modules are not loaded: `modprobe vfio_iommu_type1`"},
    {Call::open_container, ENODEV, "the node is there but VFIO is not: `modprobe vfio_iommu_type1`"},
    {Call::open_container, EACCES, "run as root, or give /dev/vfio/vfio to your user"},
    {Call::open_container, EPERM, "the container's device policy forbids /dev/vfio/vfio: allow it"},
    {Call::open_group, EACCES, "run as root, or give the node to your user: it stands for every device of the group"},
    {Call::open_group, EPERM,
     "the container's device policy forbids the node: allow it; or the group is one without an IOMMU"},
    {Call::open_group, ENOENT,
     "the node is missing though the kernel has the group: in a container, pass /dev/vfio into it; a kernel without "
     "CONFIG_VFIO_GROUP has only `--backend iommufd`"},
    {Call::open_group, ENODEV, "the group's devices are being unbound from their VFIO driver"},
    {Call::open_group, EBUSY, "another program has the group open, or one of its devices by way of its cdev"},
    {Call::set_container, EINVAL,
     "the group is in a container; or its domain's aperture and the regions of its devices leave no IOVA, or its IOMMU's "
     "driver refuses a domain, or one of its devices needs a direct mapping (RMRR, IVMD)"},
    {Call::set_container, EPERM,
     "another program owns the DMA of the group, or its interrupts are not isolated (the module option "
     "`vfio_iommu_type1.allow_unsafe_interrupts=1` accepts that)"},
    {Call::set_container, EBUSY, "a device of the group is driven by the kernel"},
    {Call::set_container, ENOSPC, "the IOMMU has no domain id left: type1 needs one more than it keeps"},
    {Call::set_container, ENODEV, "the group has gone, or its IOMMU's driver makes no domain for it"},
    {Call::set_iommu, EINVAL,
     "type1 refuses the group: its domain's aperture and the regions of its devices leave no IOVA, or its IOMMU's driver "
     "refuses a domain"},
    {Call::set_iommu, EPERM,
     "the interrupts of the group are not isolated (the module option "
     "`vfio_iommu_type1.allow_unsafe_interrupts=1` accepts that)"},
    {Call::set_iommu, ENODEV, "no VFIO IOMMU driver does TYPE1v2: `modprobe vfio_iommu_type1`"},
    {Call::set_iommu, ENOSPC, "the IOMMU has no domain id left: other VMs hold them"},
    {Call::device_fd, ENODEV, "the device left its VFIO driver: bind it again"},
    {Call::device_fd, EBUSY, "the device is open already, or is being reset: try again"},
    {Call::device_fd, EINVAL, "the device's group left its container"},
    {Call::unset_container, EBUSY, "a device of the group is still open"},
    {Call::map_dma, ENOMEM, "locked memory is over its limit (RLIMIT_MEMLOCK, counted by process), or memory is short"},
    {Call::map_dma, EINVAL,
     "the range is outside of what the container offers, or not aligned to the smallest page of all its domains"},
    {Call::map_dma, EEXIST, "something is mapped there"},
    {Call::map_dma, ENOSPC,
     "the container holds no more mappings: raise `/sys/module/vfio_iommu_type1/parameters/dma_entry_limit`"},
    {Call::map_dma, EFAULT, "the memory cannot be pinned for reading or writing"},
    {Call::map_dma, EPERM, "the memory cannot be pinned for writing"},
    {Call::unmap_dma, EINVAL, "the range cuts a mapping: somebody else has mapped there"},
};

}  // namespace

std::string errno_text(int errno_value) {
  const char* words = strerrordesc_np(errno_value);
  const char* name = strerrorname_np(errno_value);
  if (words == nullptr || name == nullptr) return fmt::format("errno {}", errno_value);
  return fmt::format("{} ({})", words, name);
}

std::string_view likely_reason(Call call, int errno_value) {
  for (const Reason& r : kReasons) {
    if (r.call == call && r.errno_value == errno_value) return r.text;
  }
  if (errno_value == ENOTTY) return "this kernel's iommufd does not know the call: it needs Linux 6.6 or newer";
  if (errno_value == EMFILE) return "too many open files: raise `ulimit -n`";
  return {};
}

tl::unexpected<Error> refused(Call call, std::string_view what, int errno_value) {
  return tl::make_unexpected(Error{fmt::format("{}: {}", what, errno_text(errno_value)),
                                   std::string(likely_reason(call, errno_value)),
                                   {},
                                   errno_value});
}

}  // namespace ioplan::vfio
