// The seam behind which Linux stands: the engine asks, constraints/kernel_law.cc answers.
//
// The engine knows that devices have quantities, that a device and a flag set allocate a HWPT, and that rules decide
// the rest; it knows no register and no driver. The judge (engine/check) is handed the same law but replays on its own.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/law/quantity.h"
#include "engine/law/rule.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"

namespace ioplan {

// A stock of domain ids that HWPTs draw from, one for each (HWPT, pool) that they touch.
struct DomainPool {
  std::uint64_t key = 0;       // pools of equal key are one
  std::uint64_t capacity = 0;  // ids left for this request
};

class Law {
 public:
  virtual ~Law() = default;

  // Whose law this is: what it allows is carried out through this interface.
  virtual KernelInterface interface() const { return KernelInterface::iommufd; }

  // Every rule, in the order in which refusals are reported.
  virtual std::span<const Rule* const> rules() const = 0;

  // The device as its registers and driver make it; VM-dependent quantities are left 0.
  // Requires: every fact that the device's driver reads is present (engine/planner completes unknown ones first).
  virtual DeviceQuantities describe(const Host& host, DeviceIndex device) const = 0;

  // What HWPT_ALLOC on this device with these flags would make. Total: whether it is refused is for the rules of
  // Phase::allocation to say, asked of the result and the device.
  virtual HwptQuantities allocate(const DeviceQuantities& allocator, std::uint8_t flags) const = 0;

  // Reserved regions when the document gives none: those that the driver itself declares. Sorted.
  virtual std::vector<ReservedRegion> own_regions(const Host& host, DeviceIndex device) const = 0;

  // Where a HWPT of this stage takes a domain id when a device behind the unit attaches; nothing when unlimited.
  virtual std::optional<DomainPool> domain_pool(const Host& host, UnitIndex unit, unsigned stage) const = 0;

  // True where a HWPT takes its domain id when it is made, and keeps it while it exists; else it has one of every pool
  // that an attached device is behind.
  virtual bool id_at_allocation(Driver driver) const = 0;

  // True where HWPT_ALLOC is of no use and devices attach to the IOAS instead (smmuv2): then all groups behind one
  // unit share the HWPT that the kernel makes.
  virtual bool automatic_only(Driver driver) const = 0;
};

}  // namespace ioplan
