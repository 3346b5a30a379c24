#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule lifecycle_kvm_verdict{
    .name = "lifecycle.kvm-verdict",
    .phase = Phase::cover,
    .law = "In frozen mode KVM's verdict on coherency stays as the guest knows it.",
    .source = "Linux virt/kvm/vfio.c kvm_vfio_update_coherency; engine/lifecycle/README.md 4",
    .refusal = "{device} would change KVM's verdict",
};

}  // namespace ioplan::rules
