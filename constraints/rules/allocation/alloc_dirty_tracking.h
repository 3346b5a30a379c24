#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_dirty_tracking{
    .name = "alloc.dirty-tracking",
    .phase = Phase::allocation,
    .law = "A dirty-tracking HWPT needs an allocating device with IOMMU_CAP_DIRTY_TRACKING.",
    .source =
        "Linux drivers/iommu/iommufd/hw_pagetable.c iommufd_hwpt_paging_alloc; VT-d ECAP.SSADS and SMPWC, AMD "
        "EFR.HDSUP, SMMUv3 HTTU; run on 7.2.13 in QEMU",
    .refusal = "{unit} cannot track dirty pages, so {device} cannot allocate a dirty-tracking HWPT",
    .errno_value = EOPNOTSUPP,
    .require = {{HwptQ::dirty_tracking, Relation::within, DeviceQ::dirty_capable}},
};

}  // namespace ioplan::rules
