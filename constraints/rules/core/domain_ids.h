#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule core_domain_ids{
    .name = "core.domain-ids",
    .phase = Phase::cover,
    .law = "A HWPT takes a domain id of every unit that it reaches; ids are finite.",
    .source = "Linux domain ids: VT-d CAP.ND, SMMU ASID and VMID bits, virtio domain_range, AMD 16 bits",
    .refusal = "{unit} has {right} domain ids left",
};

}  // namespace ioplan::rules
