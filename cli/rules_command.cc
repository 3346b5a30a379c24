#include <algorithm>
#include <cstring>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "constraints/catalog.h"
#include "engine/base/error.h"
#include "engine/base/text.h"

namespace ioplan::cli {

namespace {

std::string term_text(const Term& t) {
  switch (t.subject) {
    case Subject::hwpt: return "hwpt." + std::string(name_of(static_cast<HwptQ>(t.index)));
    case Subject::device: return "device." + std::string(name_of(static_cast<DeviceQ>(t.index)));
    case Subject::vm: return "vm." + std::string(name_of(static_cast<VmQ>(t.index)));
    case Subject::constant: break;
  }
  return std::to_string(t.constant);
}

std::string atom_text(const Atom& a) {
  constexpr std::array<std::string_view, 3> kRelations = {"within", "<=", "="};
  return fmt::format("{} {} {}", term_text(a.left), kRelations[static_cast<std::size_t>(a.relation)], term_text(a.right));
}

std::string errno_text(const Rule& rule) {
  if (rule.strict) return "not checked by Linux (strict rule)";
  if (rule.errno_value == 0 && rule.name.starts_with("type1.")) return "none: type1 makes another domain instead";
  if (rule.errno_value == 0) return "not the kernel's: policy, or what the VM asks";
  return strerrorname_np(rule.errno_value);
}

std::string explain(const Rule& rule) {
  std::string text = fmt::format("{}\n  {}\n  asked:  {}\n  source: {}\n  errno:  {}\n", rule.name, rule.law,
                                 kPhaseNames[static_cast<std::size_t>(rule.phase)], rule.source, errno_text(rule));
  for (const Atom& a : rule.when) text += fmt::format("  when:   {}\n", atom_text(a));
  for (const Atom& a : rule.require) text += fmt::format("  holds:  {}\n", atom_text(a));
  return text + fmt::format("  says:   {}\n", rule.refusal);
}

nlohmann::ordered_json json_of(const Rule& rule) {
  nlohmann::ordered_json entry{{"name", rule.name},
                               {"phase", kPhaseNames[static_cast<std::size_t>(rule.phase)]},
                               {"law", rule.law},
                               {"source", rule.source},
                               {"strict", rule.strict},
                               {"errno", rule.errno_value == 0 ? "" : strerrorname_np(rule.errno_value)},
                               {"when", nlohmann::ordered_json::array()},
                               {"require", nlohmann::ordered_json::array()}};
  for (const Atom& a : rule.when) entry["when"].push_back(atom_text(a));
  for (const Atom& a : rule.require) entry["require"].push_back(atom_text(a));
  return entry;
}

Error no_such_rule(const std::string& name) {
  std::vector<std::string_view> names;
  for (const Rule* rule : catalog()) names.push_back(rule->name);
  const auto near = nearest_name(name, names);
  return {fmt::format("no rule is named `{}`", name),
          near ? fmt::format("did you mean `{}`?", *near) : "`ioplan rules` lists every rule", {}, 0};
}

}  // namespace

Outcome rules_command(const RulesArguments& arguments) {
  std::vector<const Rule*> chosen(catalog().begin(), catalog().end());
  if (!arguments.name.empty()) {
    const Rule* rule = find_rule(arguments.name);
    if (rule == nullptr) return bad_input(no_such_rule(arguments.name));
    chosen = {rule};
  }
  if (arguments.format != Format::text) {
    auto document = nlohmann::ordered_json::array();
    for (const Rule* rule : chosen) document.push_back(json_of(*rule));
    return {kYes, document.dump(2) + "\n", ""};
  }
  std::string text;
  for (const Rule* rule : chosen) {
    text += arguments.name.empty() ? fmt::format("{:<36} {}\n{:<36} {}\n", rule->name, rule->law, "", rule->source) : explain(*rule);
  }
  return {kYes, text, ""};
}

}  // namespace ioplan::cli
