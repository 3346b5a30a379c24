#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "constraints/kernel_law.h"
#include "engine/check/check.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"

namespace ioplan::cli {

namespace {

std::string text_of(const Judgement& judgement) {
  std::string text;
  for (const Objection& o : judgement.objections) text += fmt::format("objection ({}): {}\n", o.obligation, o.text);
  for (const std::string& doubt : judgement.doubts) text += fmt::format("doubt: {}\n", doubt);
  if (judgement.accepted()) text += "the plan stands: every obligation was checked again\n";
  return text;
}

std::string json_of(const Judgement& judgement) {
  nlohmann::ordered_json document{{"accepted", judgement.accepted()},
                                  {"objections", nlohmann::ordered_json::array()},
                                  {"doubts", judgement.doubts}};
  for (const Objection& o : judgement.objections) {
    document["objections"].push_back({{"obligation", o.obligation}, {"subjects", o.subjects}, {"text", o.text}});
  }
  return document.dump(2) + "\n";
}

}  // namespace

Outcome check_command(const CheckArguments& arguments) {
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  const auto plan = read_plan_file(arguments.plan);
  if (!plan) return bad_input(plan.error());
  const Judgement judgement = check_plan(*plan, loaded->request, law_of(plan->interface));
  return {judgement.accepted() ? kYes : kNo,
          arguments.format == Format::text ? text_of(judgement) : json_of(judgement), ""};
}

}  // namespace ioplan::cli
