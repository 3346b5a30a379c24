#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule lifecycle_live{
    .name = "lifecycle.live",
    .phase = Phase::cover,
    .law = "A VM migrates while it runs only when every HWPT of it tracks dirty pages.",
    .source = "Linux iommufd HWPT_SET_DIRTY_TRACKING; engine/lifecycle/README.md 9",
    .refusal = "not every HWPT tracks dirty pages",
};

}  // namespace ioplan::rules
