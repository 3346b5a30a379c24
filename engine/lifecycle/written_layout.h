// An arrangement of HWPTs as a Plan: attributes, usable IOVA, KVM's verdict and resources are written as the planner
// writes them. Nothing is claimed about optimality: what history left is no proof of anything.
#pragma once

#include <vector>

#include "engine/law/law.h"
#include "engine/lifecycle/arrangement.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

// `by_vm`, `needs`: for each VM of the request. HWPTs are named in this order, and made in it where a container makes them; engine/lifecycle/transition.h `matched`
// gives them their running names.
Plan write_layout(const Request& request, const std::vector<std::vector<ArrangedHwpt>>& by_vm,
                  const std::vector<Needs>& needs, const Law& law);

// The HWPTs of a VM as they run; those of a container in the order of their making.
std::vector<ArrangedHwpt> arranged_now(const Plan& running, const std::string& vm, const Host& host, const Law& law);

}  // namespace ioplan
