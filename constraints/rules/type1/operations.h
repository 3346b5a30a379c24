#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule type1_operations{
    .name = "type1.operations",
    .phase = Phase::attach,
    .law = "VFIO type1 puts a group only into a domain of the operations that its own domain has: one driver's, of one stage.",
    .source = "Linux drivers/vfio/vfio_iommu_type1.c vfio_iommu_type1_attach_group (domain->ops)",
    .refusal = "type1 makes tables of stage {right} for {device}, which never share with tables of stage {left}",
    .when = {{std::uint64_t{1}, Relation::at_most, DeviceQ::type1_stage},
             {HwptQ::owner, Relation::equal, DeviceQ::owner}},
    .require = {{HwptQ::stage, Relation::equal, DeviceQ::type1_stage}},
};

}  // namespace ioplan::rules
