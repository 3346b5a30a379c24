#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_pasid_attach{
    .name = "usable.pasid-attach",
    .phase = Phase::usable,
    .law = "A VM that needs PASID needs drivers that attach page tables to PASIDs.",
    .source = "Linux iommu_domain_ops.set_dev_pasid: intel, smmuv3, mock; not AMD paging domains",
    .refusal = "the driver of {unit} cannot attach page tables to PASIDs, and {vm} needs them",
    .errno_value = EOPNOTSUPP,
    .require = {{VmQ::needs_pasid, Relation::within, DeviceQ::pasid_attach}},
};

}  // namespace ioplan::rules
