#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/lifecycle_text.h"
#include "constraints/kernel_law.h"
#include "engine/check/transition.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/lifecycle/layout.h"
#include "engine/lifecycle/transition.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Layouts {
  Plan before, after;  // matched
  Transition transition;
  std::vector<FeatureChange> guest;
};

// "  + ioas0  0x100000000-0x17fffffff rw"
std::string memory_text(const Plan& there, const Plan& other, char sign) {
  std::string text;
  for (const PlannedIoas& ioas : there.ioas) {
    const auto twin = std::ranges::find(other.ioas, ioas.id, &PlannedIoas::id);
    for (const MemoryRange& m : ioas.memory) {
      if (twin != other.ioas.end() && std::ranges::find(twin->memory, m) != twin->memory.end()) continue;
      text += fmt::format("  {} {}  {:#x}-{:#x} {}\n", sign, ioas.id, m.gpa.start, m.gpa.last, m.access == Access::read_write ? "rw" : "ro");
    }
  }
  return text;
}

std::string layouts_text(const Layouts& c) {
  std::string text = memory_text(c.before, c.after, '-') + memory_text(c.after, c.before, '+');
  for (const PlannedHwpt& h : c.before.hwpts) {
    const PlannedHwpt* now = find_hwpt(c.after, h.id);
    if (now == nullptr) {
      text += fmt::format("  - {}  {}\n", h.id, fmt::join(h.devices, " "));
    } else if (now->devices != h.devices) {
      text += fmt::format("  ~ {}  {} -> {}\n", h.id, fmt::join(h.devices, " "), fmt::join(now->devices, " "));
    }
  }
  for (const PlannedHwpt& h : c.after.hwpts) {
    if (find_hwpt(c.before, h.id) == nullptr) text += fmt::format("  + {}  {}\n", h.id, fmt::join(h.devices, " "));
  }
  return text;
}

std::string text_of(const Layouts& c) {
  if (c.transition.steps.empty()) return "the layouts are the same, but for names\n";
  return "the layouts differ\n\n" + layouts_text(c) + "\n" + transition_text(c.transition, c.guest, c.after.interface);
}

std::string json_of(const Layouts& c) {
  const Json document{{"same", c.transition.steps.empty()},
                      {"interrupted", c.transition.interrupted},
                      {"stopped", c.transition.stopped},
                      {"guest", Json::parse(guest_json(c.guest))},
                      {"steps", Json::parse(steps_json(c.transition.steps))},
                      {"plan", Json::parse(to_json(c.after))}};
  return document.dump(2) + "\n";
}

}  // namespace

Outcome diff_command(const DiffArguments& arguments) {
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  auto before = running_plan(arguments.before, loaded->request);
  if (!before) return bad_input(before.error());
  auto after = running_plan(arguments.after, loaded->request);
  if (!after) return bad_input(after.error());
  if (const auto same = same_interface(*before, *after, arguments.after); !same) return bad_input(same.error());
  const Host& host = loaded->request.host;
  const Law& law = law_of(before->interface);
  Layouts c;
  c.before = std::move(*before);
  c.after = matched(c.before, std::move(*after), host, law);
  c.transition = make_transition(c.before, c.after, host, law);
  c.guest = feature_changes(features_of(c.before), features_of(c.after));
  return {c.transition.steps.empty() ? kYes : kNo, arguments.format == Format::text ? text_of(c) : json_of(c), ""};
}

}  // namespace ioplan::cli
