#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_pasid{
    .name = "alloc.pasid",
    .phase = Phase::allocation,
    .law = "A PASID HWPT needs an allocating device whose driver supports it.",
    .source = "Linux drivers/iommu/amd/iommu.c amd_iommu_pasid_supported; run on 7.2.13 in QEMU",
    .refusal = "{unit} does not support PASID, so {device} cannot allocate a PASID HWPT",
    .errno_value = EOPNOTSUPP,
    .require = {{HwptQ::pasid, Relation::within, DeviceQ::pasid_alloc}},
};

}  // namespace ioplan::rules
