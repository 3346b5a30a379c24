// A simulated host: its IOMMU units, devices, groups and memory, made from a Host document.
//
// What a device is and what its unit accepts comes from the same law that the planner uses (engine/law/law.h). The
// machine owns what contexts share: which domain a group of devices is attached to, who owns its DMA, domain ids, software MSI
// pages, table memory and RAM. Devices do DMA through it, by way of the hardware walker.
//
// Threads: calls on one machine's contexts are serialised by the caller except for maps and unmaps (also of one IOAS),
// translations, dirty reads and DMA, which may run at once (page_table/page_table.h). Held by tests/sim_iommufd_test.cc (a slow reference model).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "backends/sim/physical_memory.h"
#include "backends/sim/refusal.h"
#include "engine/base/error.h"
#include "engine/law/law.h"
#include "engine/model/host.h"

namespace ioplan::sim {

class Context;
class Type1Container;  // type1.h: shares the machine's groups and domains with /dev/iommu

// Switches for what Linux 7.2.13 does wrong on replace (KR 2.4). The defaults are Linux; turn one off to see what would
// happen without it.
struct Hazards {
  bool failed_replace_blocks_dma = true;          // H1, Intel: the device that refused stays without translation
  bool failed_replace_drops_reservations = true;  // H2: reserved regions of the group leave the IOAS
  bool replace_across_owners_crashes = true;      // H3: refused with ENOTRECOVERABLE, "the kernel would crash here"; off: EINVAL
};

struct MachineOptions {
  Hazards hazards;
  std::uint64_t table_memory = std::uint64_t{8} << 30;  // bytes
  std::uint64_t memlock_limit = ~std::uint64_t{0};      // RLIMIT_MEMLOCK of the process, bytes
  bool cap_sys_resource = true;                         // may set option RLIMIT_MODE
};

class Machine {
 public:
  // Errors: a fact that a device's driver reads is absent and has no stock default (named in the message).
  static Result<std::unique_ptr<Machine>> create(const Host& host, const Law& law, const MachineOptions& options = {});
  ~Machine();

  // One open of /dev/iommu. The context must not outlive the machine; closing it (destroying it) frees everything in it.
  std::unique_ptr<Context> open();

  PhysicalMemory& memory();
  TableArena& tables();
  const Host& host() const;

  // A device's access to [iova, iova + bytes), through the HWPT that it (or its PASID) is attached to. Refused with EFAULT
  // and the reason when nothing is attached, DMA is blocked, or the walk faults; bytes in front of the fault are moved.
  Answer<void> dma_read(std::string_view device, std::uint64_t iova, std::span<std::byte> bytes, std::uint32_t pasid = 0);
  Answer<void> dma_write(std::string_view device, std::uint64_t iova, std::span<const std::byte> bytes, std::uint32_t pasid = 0);

  // The n-th operation from now that can fail for lack of resources (object, area, pin, table, domain id) fails with ENOMEM, once;
  // 1 is the next; 0 disarms. `injected` tells whether it has struck.
  void fail_nth(std::uint64_t n);
  bool injected() const;

  // Everything observable, as text with one fact a line: contexts, objects, areas, reservations, attachments, domain ids,
  // pinned pages, table bytes. Equal worlds give equal text; a failed call must not change it.
  std::string world() const;

 private:
  friend class Context;
  friend class Type1Container;
  struct State;
  explicit Machine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ioplan::sim
