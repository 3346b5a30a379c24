#include <algorithm>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/plan_text.h"
#include "constraints/kernel_law.h"
#include "engine/check/check.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/solve/baselines.h"
#include "engine/planner/planner.h"
#include "engine/solve/needs.h"
#include "engine/solve/symbolic.h"

namespace ioplan::cli {

namespace {

constexpr std::size_t kCompareOrders = 1000;
constexpr std::uint64_t kCompareSeed = 1;

Outcome bad_input(const Error& error) { return {kBadInput, "", to_text(error) + "\n"}; }

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
  for (const Objection& o : check_plan(*plan, request, kernel_law()).objections) {
    text += fmt::format("error: internal: the judge objects ({}): {}\n", o.obligation, o.text);
  }
  return text;
}

// What the kernel's automatic attach makes of the devices in the order of their ids.
std::string first_fit_line(const Request& request, const Plan& plan) {
  const RuleBook rules(kernel_law());
  std::size_t tables = 0;
  std::string broken;
  bool complete = true;
  const std::vector<Needs> needs = settle_needs(request, plan.preferences);
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    const VmModel model = model_vm(request, VmIndex(v), needs[v], rules, kernel_law());
    std::vector<std::uint32_t> order(model.problem.groups.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    const WalkOutcome outcome = walk(Walk::kernel, model, order, kernel_law());
    tables += outcome.hwpts;
    complete = complete && outcome.complete;
    if (broken.empty()) broken = outcome.broken;
  }
  std::string text = fmt::format("  first-fit  {} HWPT{} when devices are attached in the order of their ids", tables,
                                 tables == 1 ? "" : "s");
  if (!complete) text = "  first-fit  fails when devices are attached in the order of their ids";
  if (!broken.empty()) text += fmt::format(", which breaks {}", broken);
  return text + "\n";
}

std::string compare_text(const Request& request, const Plan& plan) {
  const RuleBook rules(kernel_law());
  const std::vector<Needs> needs = settle_needs(request, plan.preferences);
  std::string text;
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    const VmModel model = model_vm(request, VmIndex(v), needs[v], rules, kernel_law());
    const auto mine = std::ranges::count_if(plan.hwpts, [&](const PlannedHwpt& h) {
      return std::ranges::any_of(plan.ioas, [&](const auto& i) { return i.id == h.ioas && i.vm == request.vms[v].name; });
    });
    text += fmt::format("\n  compare {} (orders of plugging; ioplan: {} HWPT{} in every order)\n", request.vms[v].name, mine,
                        mine == 1 ? "" : "s");
    for (Walk kind : {Walk::kernel, Walk::qemu, Walk::type1}) {
      const WalkStatistics s = walk_orders(kind, model, kCompareOrders, kCompareSeed, kernel_law());
      text += fmt::format("    {:<7} {} orders:", kWalkNames[static_cast<std::size_t>(kind)], s.orders);
      for (const auto& [hwpts, n] : s.valid) text += fmt::format(" {} HWPT{} x{}", hwpts, hwpts == 1 ? "" : "s", n);
      for (const auto& [key, n] : s.unsafe) text += fmt::format(" [{} but breaks {} x{}]", key.first, key.second, n);
      if (s.failed != 0) text += fmt::format(" [attach fails x{}]", s.failed);
      text += "\n";
    }
  }
  return text;
}

nlohmann::ordered_json compare_json(const Request& request, const Plan& plan) {
  const RuleBook rules(kernel_law());
  const std::vector<Needs> needs = settle_needs(request, plan.preferences);
  auto result = nlohmann::ordered_json::array();
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    const VmModel model = model_vm(request, VmIndex(v), needs[v], rules, kernel_law());
    for (Walk kind : {Walk::kernel, Walk::qemu, Walk::type1}) {
      const WalkStatistics s = walk_orders(kind, model, kCompareOrders, kCompareSeed, kernel_law());
      nlohmann::ordered_json entry{{"vm", request.vms[v].name},
                                   {"walk", kWalkNames[static_cast<std::size_t>(kind)]},
                                   {"orders", s.orders},
                                   {"failed", s.failed},
                                   {"valid", nlohmann::ordered_json::array()},
                                   {"unsafe", nlohmann::ordered_json::array()}};
      for (const auto& [hwpts, n] : s.valid) entry["valid"].push_back({{"hwpts", hwpts}, {"orders", n}});
      for (const auto& [key, n] : s.unsafe) {
        entry["unsafe"].push_back({{"hwpts", key.first}, {"breaks", key.second}, {"orders", n}});
      }
      result.push_back(std::move(entry));
    }
  }
  return result;
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

}  // namespace

Outcome plan_command(const PlanArguments& arguments) {
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  if (const auto vms = require_vm(*loaded); !vms) return bad_input(vms.error());
  const Request& request = loaded->request;
  const Plan plan = make_plan(request, kernel_law());

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
  const bool compare = arguments.compare && plan.verdict == Verdict::feasible;
  switch (arguments.format) {
    case Format::json:
      outcome.out = bytes;
      if (compare) {
        auto document = nlohmann::ordered_json::parse(bytes);
        document["compare"] = compare_json(request, plan);
        outcome.out = document.dump(2) + "\n";
      }
      break;
    case Format::yaml: outcome.out = to_yaml(plan); break;
    case Format::text:
      outcome.out = plan_text(plan, request, loaded->sources);
      if (plan.verdict == Verdict::feasible && !plan.hwpts.empty()) {
        const std::size_t proof = outcome.out.find("  proof ");
        outcome.out.insert(proof, first_fit_line(request, plan));
      }
      if (compare) outcome.out += compare_text(request, plan);
      break;
  }
  return outcome;
}

}  // namespace ioplan::cli
