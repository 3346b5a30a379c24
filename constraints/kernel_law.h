// The law of Linux 7.2.13, as the engine's seam asks for it (engine/law/law.h).
#pragma once

#include "engine/law/law.h"

namespace ioplan {

// Stateless; one object serves every thread.
const Law& kernel_law();

// The same kernel's VFIO type1 containers (KR 5.1).
const Law& type1_law();

const Law& law_of(KernelInterface interface);

// The page size of an architecture's stock kernel, bytes.
std::uint64_t stock_page_size(Arch arch);

}  // namespace ioplan
