#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule lifecycle_guest_visible{
    .name = "lifecycle.guest-visible",
    .phase = Phase::cover,
    .law = "A VM lands on a host where its guest finds what it has seen: page sizes, width, granule, KVM's verdict.",
    .source = "engine/lifecycle/README.md 9",
    .refusal = "the guest would miss something",
};

}  // namespace ioplan::rules
