#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule coherency_mediated{
    .name = "coherency.mediated",
    .phase = Phase::cover,
    .law = "With `coherency: required`, a VM may have no mediated device: KVM always counts one as non-coherent.",
    .source = "Linux virt/kvm/vfio.c kvm_vfio_update_coherency, drivers/vfio/vfio_main.c",
    .refusal = "the mediated device {device} always makes KVM non-coherent, and the policy says `coherency: required`",
};

}  // namespace ioplan::rules
