#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule lifecycle_unplug_coherency{
    .name = "lifecycle.unplug-coherency",
    .phase = Phase::cover,
    .law = "The last non-coherent device leaves KVM only after the others are in HWPTs that block no-snoop.",
    .source = "Linux drivers/vfio/group.c vfio_group_enforced_coherent; engine/lifecycle/README.md 4",
    .refusal = "without {device} KVM would be coherent too early",
};

}  // namespace ioplan::rules
