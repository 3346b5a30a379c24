// Answers about running VMs as people and programs read them: what hotplug, headroom, migrate, diff and observe share.
#pragma once

#include <string>
#include <vector>

#include "engine/apply/apply.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/transition.h"
#include "engine/model/plan.h"

namespace ioplan::cli {

// "  interrupted  nobody", "  guest sees  ...", "  steps" with one line each.
std::string transition_text(const Transition& transition, const std::vector<FeatureChange>& guest,
                            KernelInterface interface);
std::string conflict_text(const std::vector<Conflict>& conflict);

// "no drift: ...", or "drift" with one line for each difference.
std::string drift_text(const std::vector<Difference>& differences);

// As JSON: the value of a key of the Plan document, for lists that it shares with other answers ("conflict",
// "unknown").
std::string part_of_plan(const Plan& plan, const std::string& key);
std::string steps_json(const std::vector<Step>& steps);
std::string guest_json(const std::vector<FeatureChange>& guest);

}  // namespace ioplan::cli
