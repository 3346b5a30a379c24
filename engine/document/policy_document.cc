#include "engine/document/policy_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "engine/base/text.h"
#include "engine/document/header.h"
#include "engine/document/selector.h"

namespace ioplan {

namespace {

constexpr std::array<std::string_view, 3> kFallbackNames = {"nested", "hybrid", "shadow"};
constexpr std::array<std::string_view, 4> kRuleNames = {"separate", "together", "require", "limit"};

// The words of a list in which nothing may appear twice, as indices into `names`.
std::vector<std::size_t> read_choices(Reader& reader, const Field& field, Names names) {
  std::vector<std::size_t> chosen;
  reader.items(field, [&](const Field& item) {
    const std::size_t choice = reader.choice(item, names);
    if (reader.ok() && std::ranges::find(chosen, choice) != chosen.end()) {
      reader.fail(item.value, fmt::format("`{}` appears twice in `{}`", names[choice], field.key));
    }
    chosen.push_back(choice);
  });
  return chosen;
}

// Those listed come first, in that order; the others follow in the default order.
void read_objectives(Reader& reader, const Field& field, std::array<Objective, 5>& objectives) {
  const std::array<Objective, 5> by_default = objectives;
  std::vector<Objective> order;
  for (std::size_t i : read_choices(reader, field, kObjectiveNames)) order.push_back(static_cast<Objective>(i));
  if (!reader.ok()) return;
  for (Objective o : by_default) {
    if (std::ranges::find(order, o) == order.end()) order.push_back(o);
  }
  std::ranges::copy(order, objectives.begin());
}

SeparateRule read_separate(Reader& reader, const Field& field, const Host& host) {
  static constexpr std::array<std::string_view, 2> keys = {"a", "b"};
  const MapReader map(reader, field.value, "separate", keys);
  SeparateRule rule;
  rule.a = read_selector(reader, map.required("a"), host);
  rule.b = read_selector(reader, map.required("b"), host);
  return rule;
}

RequireRule read_require(Reader& reader, const Field& field, const Field& which, const Host& host) {
  static constexpr std::array<std::string_view, 5> keys = {"page_size", "dirty_tracking", "nest_parent", "pasid",
                                                           "enforce_cache_coherency"};
  const MapReader map(reader, field.value, "require", keys);
  RequireRule rule;
  rule.which = read_selector(reader, which, host);
  rule.page_size = reader.page_size(map.optional("page_size"));
  rule.dirty_tracking = reader.boolean(map.optional("dirty_tracking"));
  rule.nest_parent = reader.boolean(map.optional("nest_parent"));
  rule.pasid = reader.boolean(map.optional("pasid"));
  rule.enforce_cache_coherency = reader.boolean(map.optional("enforce_cache_coherency"));
  const bool asks =
      rule.page_size != 0 || rule.dirty_tracking || rule.nest_parent || rule.pasid || rule.enforce_cache_coherency;
  if (!asks) reader.fail(field.value, "`require` asks for nothing", "accepted: " + list_of(keys));
  return rule;
}

LimitRule read_limit(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 1> keys = {"hwpts"};
  const MapReader map(reader, field.value, "limit", keys);
  const Field hwpts = map.required("hwpts");
  const LimitRule rule{reader.integer(hwpts, 32)};
  if (hwpts && rule.hwpts == 0) reader.fail(hwpts.value, "a limit of 0 HWPTs lets no device be assigned");
  return rule;
}

PolicyRule read_rule(Reader& reader, const Node& node, const Host& host) {
  static constexpr std::array<std::string_view, 6> keys = {"name", "separate", "together", "require", "for", "limit"};
  const MapReader map(reader, node, "rules", keys);
  PolicyRule rule;
  rule.name = reader.text(map.required("name"));
  std::vector<Field> kinds;
  for (std::string_view kind : kRuleNames) {
    if (const Field field = map.optional(kind)) kinds.push_back(field);
  }
  if (kinds.size() != 1) {
    reader.fail(node, fmt::format("rule {} must say one thing", in_backticks(rule.name)),
                "exactly one of " + list_of(kRuleNames));
    return rule;
  }
  const Field& what = kinds.front();
  const Field which = map.optional("for");
  if (which && what.key != "require") {
    reader.fail(which.value, fmt::format("`for` belongs to `require`, not to `{}`", what.key));
  }
  if (what.key == "separate") rule.what = read_separate(reader, what, host);
  if (what.key == "together") rule.what = TogetherRule{read_selector(reader, what, host)};
  if (what.key == "require") rule.what = read_require(reader, what, which, host);
  if (what.key == "limit") rule.what = read_limit(reader, what);
  return rule;
}

void read_rules(Reader& reader, const Field& field, const Host& host, std::vector<PolicyRule>& rules) {
  std::map<std::string, Node> seen;
  reader.items(field, [&](const Field& item) {
    rules.push_back(read_rule(reader, item.value, host));
    if (!reader.ok()) return;
    const auto [it, added] = seen.try_emplace(rules.back().name, item.value);
    if (!added) fail_duplicate(reader, "rules with the name", it->first, it->second, item.value);
  });
  std::ranges::sort(rules, natural_less, &PolicyRule::name);
}

}  // namespace

Policy read_policy(Reader& reader, const Node& root, const Host& host) {
  static constexpr std::array<std::string_view, 11> keys = {
      "apiVersion",      "kind",       "name",    "coherency",          "assumed_coherency", "assumptions",
      "viommu_fallback", "objectives", "hotplug", "noncoherent_unplug", "rules"};
  const MapReader map(reader, root, "Policy", keys);
  Policy policy;
  if (const Field f = map.optional("name")) policy.name = reader.text(f);
  if (const Field f = map.optional("coherency")) {
    policy.coherency = reader.enumeration<CoherencyPolicy>(f, kCoherencyPolicyNames);
  }
  if (const Field f = map.optional("assumed_coherency")) {
    policy.assumed_coherency = reader.enumeration<Permission>(f, kPermissionNames);
  }
  if (const Field f = map.optional("assumptions")) {
    policy.assumptions = reader.enumeration<Permission>(f, kPermissionNames);
  }
  if (const Field f = map.optional("hotplug")) {
    policy.hotplug = reader.enumeration<HotplugPolicy>(f, kHotplugPolicyNames);
  }
  if (const Field f = map.optional("noncoherent_unplug")) {
    policy.noncoherent_unplug = reader.enumeration<NoncoherentUnplug>(f, kNoncoherentUnplugNames);
  }
  for (std::size_t i : read_choices(reader, map.optional("viommu_fallback"), kFallbackNames)) {
    policy.viommu_fallback.emplace_back(kFallbackNames[i]);
  }
  read_objectives(reader, map.optional("objectives"), policy.objectives);
  read_rules(reader, map.optional("rules"), host, policy.rules);
  return policy;
}

}  // namespace ioplan
