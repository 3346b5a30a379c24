// The IOMMU core of the simulated kernel: devices in their groups, who owns a group's DMA, which domain it is attached to.
//
// What contexts and type1 containers share, one level below both: Linux's drivers/iommu/iommu.c with the drivers' attach
// operations. A group moves from domain to domain as a whole; all its devices must accept, also those that nobody bound.
// A driver accepts what the law says (rules of Phase::attach; strict rules are what Linux does not check). Domain ids
// come from the law's pools: Intel takes one when the first device behind a unit attaches, others when the table is
// made. Not thread-safe, but for DMA's reads. Held by tests/sim_iommufd_test.cc and tests/sim_type1_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "backends/sim/domain.h"
#include "backends/sim/failure_point.h"
#include "backends/sim/machine.h"
#include "backends/sim/refusal.h"
#include "engine/base/log2.h"
#include "engine/law/law.h"

namespace ioplan::sim {

struct GroupState {
  std::uint32_t number = 0;           // the kernel's
  std::vector<DeviceIndex> members;   // ascending
  const void* owner = nullptr;        // of its DMA: a context or a container
  unsigned claims = 0;                // how often the owner claimed it
  Domain* domain = nullptr;           // null: blocked while somebody owns it
  std::map<std::uint32_t, Domain*> pasids;  // PASID attachments
};

struct DeviceState {
  DeviceIndex index;
  DeviceQuantities quantities;
  std::vector<ReservedRegion> regions;
  GroupState* group = nullptr;        // null: nothing is known of where it sits, and nobody can use it
  Domain* domain = nullptr;           // what its unit translates with: the group's, save after hazard H1
  std::map<std::uint32_t, Domain*> pasids;
  bool bound = false;                 // open in a context

  bool is(Driver driver) const { return quantities[DeviceQ::driver] == static_cast<std::uint64_t>(driver); }
  // Linux's max_pasids; 0: the device issues none. A mock device's firmware node says 0 bits, which makes one PASID, 0.
  std::uint64_t max_pasids() const {
    const auto bits = static_cast<unsigned>(quantities[DeviceQ::pasid_bits]);
    return bits == 0 && !is(Driver::mock) ? 0 : pow2(bits);
  }
};

enum class Coherency : std::uint8_t { leave, enforce };

class IommuCore {
 public:
  IommuCore(const Host& host, const Law& law, const Hazards& hazards, TableArena& tables, FailurePoint& failures);

  const Host& host() const { return host_; }
  const Hazards& hazards() const { return hazards_; }
  std::uint64_t kernel_page_size() const { return page_size_; }

  DeviceState& device(DeviceIndex index) { return devices_[index.index()]; }
  const DeviceState& device(DeviceIndex index) const { return devices_[index.index()]; }
  const std::vector<DeviceState>& devices() const { return devices_; }
  const std::map<std::uint32_t, GroupState>& groups() const { return groups_; }
  GroupState* group(std::uint32_t number);

  bool isolated_msi(const GroupState& group) const;

  // Ownership of a group's DMA (iommu_device_claim_dma_owner). EPERM: somebody else's; EINVAL: firmware wants a device of it
  // mapped 1:1. Claimed as often as it is released.
  Answer<void> claim(GroupState& group, const void* owner);
  void release(GroupState& group);

  // The driver's domain_alloc_paging_flags. Errors: those of the rules of Phase::allocation; ENOSPC and its like without
  // domain ids; ENOMEM. `enforce`: as far as the device's unit can.
  Answer<std::unique_ptr<Domain>> allocate_domain(DeviceIndex allocator, std::uint8_t flags, Coherency coherency);
  // Gives its domain ids back. Requires: attached nowhere.
  void free_domain(std::unique_ptr<Domain> domain);

  // Would the driver of each device of the group take the domain? The first refusal.
  Answer<void> accepts(const Domain& domain, const GroupState& group) const;

  // From blocked or from another domain, all devices or none (but see Hazards).
  Answer<void> attach(GroupState& group, Domain& domain);
  void detach(GroupState& group);
  // Back to how an SMMUv2 domain was before its first attach. Requires: attached to nothing.
  void unfinalise(Domain& domain);

  Answer<void> attach_pasid(const DeviceState& device, std::uint32_t pasid, Domain& domain);
  Answer<void> replace_pasid(const DeviceState& device, std::uint32_t pasid, Domain& domain);
  void detach_pasid(GroupState& group, std::uint32_t pasid);

  // Domain ids taken, by pool. For inspection.
  const std::map<std::uint64_t, std::uint64_t>& ids_taken() const { return ids_taken_; }

 private:
  Answer<void> driver_accepts(const Domain& domain, const DeviceState& device) const;
  Answer<void> enable_page_requests(const Domain& domain, const DeviceState& device) const;
  Answer<void> driver_attach(DeviceState& device, Domain& domain);
  Answer<void> driver_attach_pasid(DeviceState& device, std::uint32_t pasid, Domain& domain);
  void driver_block(DeviceState& device);
  void restore(DeviceState& device, Domain& domain);
  Answer<void> set_pasid(GroupState& group, std::uint32_t pasid, Domain& domain, Domain* old);

  Answer<void> finalise(Domain& domain, const DeviceState& device);
  Answer<void> take_id(Domain& domain, const DeviceState& device);
  void hold_id(Domain& domain, const DeviceState& device);
  void drop_id(Domain& domain, const DeviceState& device);
  void return_id(Domain& domain, std::uint64_t pool);
  std::optional<DomainPool> pool_of(const Domain& domain, const DeviceState& device) const;

  const Host& host_;
  const Law& law_;
  Hazards hazards_;
  TableArena& tables_;
  FailurePoint& failures_;
  std::uint64_t page_size_ = 4096;
  std::vector<DeviceState> devices_;
  std::map<std::uint32_t, GroupState> groups_;
  std::vector<const Rule*> allocation_rules_, attach_rules_;
  std::map<std::uint64_t, std::uint64_t> ids_taken_;
};

}  // namespace ioplan::sim
