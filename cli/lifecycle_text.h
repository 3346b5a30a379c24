// Answers about running VMs as people and programs read them: what hotplug, headroom, migrate, diff and observe share.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/transition.h"
#include "engine/model/plan.h"

namespace ioplan::cli {

using Json = nlohmann::ordered_json;

// "  interrupted  nobody", "  guest sees  ...", "  steps" with one line each.
std::string transition_text(const Transition& transition, const std::vector<FeatureChange>& guest);
std::string conflict_text(const std::vector<Conflict>& conflict);

// The value of a key of the Plan document, for lists that it shares with other answers ("steps", "conflict",
// "unknown").
Json part_of_plan(const Plan& plan, const std::string& key);
Json steps_json(const std::vector<Step>& steps);
Json guest_json(const std::vector<FeatureChange>& guest);

}  // namespace ioplan::cli
