// What a guest can tell of its layout, and what a running VM may therefore not change (engine/lifecycle/README.md 1,
// 8). Held by tests/lifecycle_test.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/model/plan.h"

namespace ioplan {

// One guest-visible feature of a VM that differs between two layouts, as the Plan document writes it.
struct FeatureChange {
  std::string vm;
  std::string feature;
  std::string before, after;  // "none" where the VM has no HWPT

  friend bool operator==(const FeatureChange&, const FeatureChange&) = default;
};

// The features of every VM that has a HWPT, in the plan's order of IOASes.
std::vector<FrozenFeature> features_of(const Plan& plan);

// What differs, by VM and feature.
std::vector<FeatureChange> feature_changes(const std::vector<FrozenFeature>& before,
                                           const std::vector<FrozenFeature>& after);

// Mediated devices with access to this address space, by UUID.
std::vector<std::string> mediated_devices(const Plan& plan, std::string_view ioas);

// The HWPT that the device is attached to; null when it is in none.
const PlannedHwpt* home_of(const Plan& plan, std::string_view device);

}  // namespace ioplan
