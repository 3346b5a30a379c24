// What a guest can tell of its layout, and what a running VM may therefore not change (README.md 1 and 8).
#pragma once

#include <string>
#include <vector>

#include "engine/model/plan.h"

namespace ioplan {

// One guest-visible feature of a VM as the Plan document writes it.
struct FeatureChange {
  std::string vm;
  std::string feature;        // page_sizes, address_bits, granule, dirty_tracking, noncoherent_dma
  std::string before, after;  // "none" where the VM has no HWPT
};

// The features of every VM that has a HWPT, in the plan's order of VMs.
std::vector<FrozenFeature> features_of(const Plan& plan);

// What differs between two layouts.
std::vector<FeatureChange> feature_changes(const Plan& before, const Plan& after);

}  // namespace ioplan
