// Which VFIO files KVM keeps when devices leave: the verdict that the guest lives with must not change too early
// (README.md 4). Held by tests/lifecycle_test.cc.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

struct KvmFiles {
  std::vector<std::string> retained;  // at most one
  std::optional<Conflict> refusal;
};

// Requires: `request` is the changed one; mode is frozen or additive.
KvmFiles kvm_files_after(const Plan& running, const Request& request, const VirtualMachine& vm, HotplugPolicy mode,
                         const Law& law);

}  // namespace ioplan
