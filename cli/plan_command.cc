#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/compare.h"
#include "cli/plan_text.h"
#include "constraints/kernel_law.h"
#include "engine/check/check.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/planner/planner.h"
#include "engine/solve/needs.h"
#include "engine/solve/symbolic.h"

namespace ioplan::cli {

namespace {

int exit_code(Verdict verdict) {
  switch (verdict) {
    case Verdict::feasible: return kYes;
    case Verdict::infeasible: return kNo;
    case Verdict::undecided: return kUndecided;
  }
  return kInternal;
}

// The case, for a bug report: documents are named, the plan is whole.
std::string save_case(const std::string& bytes, const std::vector<std::string>& files) {
  const std::string path = "ioplan-case.json";
  std::ofstream out(path);
  out << bytes;
  std::string text = fmt::format("saved {} (made from", path);
  for (const std::string& f : files) text += " " + f;
  return text + ")";
}

// Re-reads the written bytes and lets the judge doubt them. Empty when nothing is objected.
std::string contradictions(const std::string& bytes, const Request& request) {
  const auto plan = read_plan("plan", bytes);
  if (!plan) return to_text(plan.error()) + "\n";
  std::string text;
  for (const Objection& o : check_plan(*plan, request, law_of(plan->interface)).objections) {
    text += fmt::format("error: internal: the judge objects ({}): {}\n", o.obligation, o.text);
  }
  return text;
}

// Z3's second opinion on a decided plan: empty when it agrees.
std::string symbolic_disagreement(const Request& request, const Plan& plan, std::string& note) {
  if (plan.verdict == Verdict::undecided) return {};
  const SymbolicAnswer answer = solve_symbolic(request, settle_needs(request, plan.preferences), kernel_law());
  if (answer.verdict == Verdict::undecided) {
    note = "warning: z3 gave up within its resource limit; no second opinion\n";
    return {};
  }
  if (answer.verdict != plan.verdict) return "error: internal: z3 reaches another verdict than the cover\n";
  if (plan.verdict == Verdict::infeasible) {
    note = "z3 agrees: unsat under";
    for (const CoreMember& m : answer.core) note += fmt::format(" {}({})", m.rule, m.subject);
    note += "\n";
    return {};
  }
  if (answer.values != plan.objectives) return "error: internal: z3 reaches other objective values than the cover\n";
  note = "z3 agrees: the same verdict and the same value of every objective\n";
  return {};
}

Result<void> write_smt2(const Plan& plan, const Request& request, const std::string& path) {
  std::string text = plan.optimality.smt2;
  if (text.empty()) text = one_fewer_smt2(solve(request, settle_needs(request, plan.preferences), kernel_law(), {}), request);
  std::ofstream out(path);
  if (!(out << text).flush()) return failure(fmt::format("cannot write `{}`", path), "choose a file in a directory that can be written");
  return {};
}

nlohmann::ordered_json to_json(const std::string& vm, std::string_view walk, const sim::WalkStatistics& s) {
  nlohmann::ordered_json entry{{"vm", vm},
                               {"walk", walk},
                               {"orders", s.orders},
                               {"failed", s.failed},
                               {"valid", nlohmann::ordered_json::array()},
                               {"unsafe", nlohmann::ordered_json::array()}};
  for (const auto& [hwpts, n] : s.valid) entry["valid"].push_back({{"hwpts", hwpts}, {"orders", n}});
  for (const auto& [key, n] : s.unsafe) {
    entry["unsafe"].push_back({{"hwpts", key.first}, {"breaks", key.second}, {"orders", n}});
  }
  return entry;
}

Result<std::string> json_with_comparison(const Plan& plan, const std::string& bytes, const Request& request) {
  const auto comparisons = compare(request, plan);
  if (!comparisons) return tl::make_unexpected(comparisons.error());
  auto document = nlohmann::ordered_json::parse(bytes);
  document["compare"] = nlohmann::ordered_json::array();
  for (const Comparison& c : *comparisons) {
    for (std::size_t w = 0; w < c.by_walk.size(); ++w) {
      document["compare"].push_back(to_json(c.vm, sim::kWalkNames[w], c.by_walk[w]));
    }
  }
  return document.dump(2) + "\n";
}

Result<std::string> text_with_baselines(const PlanArguments& arguments, const Plan& plan, const Loaded& loaded) {
  std::string text = plan_text(plan, loaded.request, loaded.sources);
  if (plan.verdict != Verdict::feasible) return text;
  if (!plan.hwpts.empty()) {
    const Result<std::string> line = first_fit_line(loaded.request, plan);
    if (!line) return line;
    text.insert(text.find("  proof "), *line);
  }
  if (!arguments.compare) return text;
  const auto comparisons = compare(loaded.request, plan);
  if (!comparisons) return tl::make_unexpected(comparisons.error());
  for (const Comparison& c : *comparisons) text += to_text(c);
  return text;
}

// Z3 chooses HWPTs; it is not told of the order in which groups join a container.
Result<void> require_second_opinion(const PlanArguments& arguments) {
  if (arguments.interface == KernelInterface::iommufd || (!arguments.symbolic && arguments.smt2_file.empty())) return {};
  return failure("`--solver symbolic` and `--emit-smt2` know iommufd only",
                 "leave them away: `ioplan check` replays a type1 plan with code of its own");
}

// The plan as the user wants to read it.
Result<std::string> write(const PlanArguments& arguments, const Plan& plan, const std::string& bytes, const Loaded& loaded) {
  switch (arguments.format) {
    case Format::json:
      if (!arguments.compare || plan.verdict != Verdict::feasible) return bytes;
      return json_with_comparison(plan, bytes, loaded.request);
    case Format::yaml: return to_yaml(plan);
    case Format::text: return text_with_baselines(arguments, plan, loaded);
  }
  return bytes;
}

}  // namespace

Outcome plan_command(const PlanArguments& arguments) {
  if (const auto known = require_second_opinion(arguments); !known) return bad_input(known.error());
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  if (const auto vms = require_vm(*loaded); !vms) return bad_input(vms.error());
  const Request& request = loaded->request;
  const Plan plan = make_plan(request, law_of(arguments.interface));

  const std::string bytes = to_json(plan);
  if (const std::string objections = contradictions(bytes, request); !objections.empty()) {
    return {kInternal, "", objections + save_case(bytes, arguments.files) + "\n"};
  }
  Outcome outcome{exit_code(plan.verdict), "", ""};
  if (arguments.symbolic) {
    if (const std::string wrong = symbolic_disagreement(request, plan, outcome.err); !wrong.empty()) {
      return {kInternal, "", wrong + save_case(bytes, arguments.files) + "\n"};
    }
  }
  if (!arguments.smt2_file.empty() && plan.verdict == Verdict::feasible) {
    if (const auto written = write_smt2(plan, request, arguments.smt2_file); !written) return bad_input(written.error());
  }
  if (plan.verdict == Verdict::feasible && plan.optimality.proof == ProofKind::none) {
    outcome.err += "warning: the number of HWPTs is not proved minimal within the budget\n";
  }
  const Result<std::string> written = write(arguments, plan, bytes, *loaded);
  if (!written) return bad_input(written.error());
  outcome.out = *written;
  return outcome;
}

}  // namespace ioplan::cli
