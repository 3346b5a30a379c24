#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_dma_coherency{
    .name = "usable.dma-coherency",
    .phase = Phase::usable,
    .law = "A device whose DMA does not snoop needs a guest that maintains caches.",
    .source = "ioplan policy (seed question S4): VirtualMachine.guest_cache_maintenance",
    .refusal =
        "{device} does DMA that does not snoop CPU caches, and {vm} does not say `guest_cache_maintenance: true`",
    .require = {{DeviceQ::noncoherent_dma, Relation::within, VmQ::guest_cache_maintenance}},
};

}  // namespace ioplan::rules
