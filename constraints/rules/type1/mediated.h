#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule type1_mediated{
    .name = "type1.mediated",
    .phase = Phase::cover,
    .law = "Mediated devices are planned for iommufd only.",
    .source = "ioplan",
    .refusal = "the mediated device {device} can only be planned for iommufd",
};

}  // namespace ioplan::rules
