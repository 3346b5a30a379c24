// What a machine is made of, for those who live on it: contexts (iommufd.h) and type1 containers (type1.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/sim/failure_point.h"
#include "backends/sim/iommu_core.h"
#include "backends/sim/machine.h"
#include "backends/sim/memlock.h"
#include "backends/sim/pages.h"
#include "backends/sim/physical_memory.h"
#include "backends/sim/table_arena.h"

namespace ioplan::sim {

// An open file that owns groups: it tells the machine what it holds, for Machine::world.
class Participant {
 public:
  virtual ~Participant() = default;
  virtual void append_text(std::string& text) const = 0;
};

struct Machine::State {
  State(const Host& facts, const Law& law, const MachineOptions& wanted, std::uint64_t table_bytes,
        std::uint64_t page_size);

  const Host host;
  const MachineOptions options;
  FailurePoint failures;
  Memlock memlock;
  TableArena tables;
  PhysicalMemory memory;
  IommuCore core;
  std::vector<const Participant*> participants;  // in the order of opening

  PageSupply supply() { return {memory, memlock, failures, core.kernel_page_size()}; }
  Answer<Translation> translate(const DeviceState& device, std::uint32_t pasid, std::uint64_t iova, DmaAccess access) const;
};

// The page that devices behind a translating unit write their interrupts to (one ITS a machine). It lies in front of all RAM
// and holds nothing: a write to it is an interrupt, which is not simulated further.
inline constexpr std::uint64_t kDoorbellPage = 0x10000;

}  // namespace ioplan::sim
