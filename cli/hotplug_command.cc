#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/lifecycle_text.h"
#include "cli/plan_text.h"
#include "constraints/kernel_law.h"
#include "engine/base/text.h"
#include "engine/check/check.h"
#include "engine/check/transition.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/planner/missing.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kType1Entries = 65535;  // vfio_iommu_type1's dma_entry_limit

std::string_view word(HotplugPolicy mode) { return kHotplugPolicyNames[static_cast<std::size_t>(mode)]; }

// "+64GiB" or "0x100000000-0x1ffffffff".
Result<void> read_memory(const std::string& text, Change& change) {
  if (text.starts_with('+')) {
    const auto size = parse_size(text.substr(1));
    if (!size || *size == 0) return failure(fmt::format("`{}` is no size", text), "for example `--memory +64GiB`");
    change.memory_size = *size;
    return {};
  }
  const auto dash = text.find('-');
  const auto start = dash == std::string::npos ? std::nullopt : parse_integer(text.substr(0, dash));
  const auto last = dash == std::string::npos ? std::nullopt : parse_integer(text.substr(dash + 1));
  if (!start || !last || *last < *start) {
    return failure(fmt::format("`{}` is neither `+SIZE` nor `START-LAST`", text),
                   "for example `--memory +64GiB`, or `--memory 0x100000000-0x1ffffffff`");
  }
  change.memory.push_back({*start, *last});
  return {};
}

Result<Change> change_of(const HotplugArguments& arguments) {
  Change change{arguments.vm, arguments.add, arguments.remove, {}, 0};
  for (const std::string& text : arguments.memory) {
    if (auto read = read_memory(text, change); !read) return tl::make_unexpected(read.error());
  }
  if (change.add.empty() && change.remove.empty() && change.memory.empty() && change.memory_size == 0) {
    return failure("nothing is to change", "`--add DEVICE`, `--remove DEVICE` or `--memory +SIZE`");
  }
  return change;
}

std::string title(const HotplugArguments& a, const HotplugAnswer& answer) {
  std::string text =
      fmt::format("{} in {} mode:", kVerdictNames[static_cast<std::size_t>(answer.verdict)], word(answer.mode));
  for (const std::string& d : a.add) text += " +" + d;
  for (const std::string& d : a.remove) text += " -" + d;
  for (const std::string& m : a.memory) text += m.starts_with('+') ? " " + m : " +" + m;
  return text + "\n\n";
}

std::size_t dma_entries(const Plan& plan) {
  std::size_t entries = 0;
  for (const PlannedIoas& i : plan.ioas) entries = std::max(entries, i.memory.size());
  return entries;
}

std::string layout_text(const Plan& before, const Plan& after) {
  std::string text;
  for (const PlannedHwpt& h : after.hwpts) {
    const bool kept = std::ranges::find(before.hwpts, h.id, &PlannedHwpt::id) != before.hwpts.end();
    text += fmt::format("  {:<8} {:<4} {} stage {}, {} bits, {}, {}\n", h.id, kept ? "kept" : "new",
                        kPageTableFormatNames[static_cast<std::size_t>(h.format)], h.stage, h.address_bits,
                        format_page_sizes(h.page_sizes),
                        h.enforce_cache_coherency ? "blocks no-snoop" : "does not block no-snoop");
    text += fmt::format("                {}\n",
                        h.devices.empty() ? "no device" : fmt::format("{}", fmt::join(h.devices, " ")));
  }
  for (const PlannedIoas& i : after.ioas) {
    for (const std::string& d : i.retained) text += fmt::format("  retained {}: its file stays with KVM\n", d);
  }
  return text;
}

std::string text_of(const HotplugArguments& a, const HotplugAnswer& answer, const Plan& running) {
  std::string text = title(a, answer);
  if (answer.verdict == Verdict::feasible) {
    const Resources& r = answer.plan.resources;
    text += layout_text(running, answer.plan) + "\n";
    text += fmt::format("  kvm          {}\n", answer.plan.kvm.noncoherent_dma ? "non-coherent DMA" : "coherent DMA");
    text += fmt::format("  memory       pinned {}, memlock {}, page tables {}, {} of type1's {} DMA entries\n",
                        approximate_size(r.pinned_bytes), approximate_size(r.memlock_bytes),
                        approximate_size(r.page_table_bytes), dma_entries(answer.plan), kType1Entries);
    return text + transition_text(answer.transition, answer.guest, answer.plan.interface);
  }
  for (const UnknownFact& u : answer.unknown) {
    text += fmt::format("  `{}` is unknown and decides the answer:\n    {} -> {}\n    {} -> {}\n", u.fact,
                        u.first_value, u.first_answer, u.second_value, u.second_answer);
  }
  if (answer.verdict == Verdict::infeasible) text += conflict_text(answer.conflict);
  if (!answer.alternatives.empty()) text += "\n  What would do, each tried:\n";
  char letter = 'a';
  for (const Alternative& alternative : answer.alternatives) {
    text += fmt::format("    {}) {}\n", letter++, alternative.text);
  }
  return text;
}

std::string json_of(const HotplugAnswer& answer) {
  Plan carrier;
  carrier.conflict = answer.conflict;
  carrier.unknown = answer.unknown;
  Json document{{"verdict", kVerdictNames[static_cast<std::size_t>(answer.verdict)]},
                {"mode", word(answer.mode)},
                {"interrupted", answer.transition.interrupted},
                {"stopped", answer.transition.stopped},
                {"guest", Json::parse(guest_json(answer.guest))},
                {"steps", Json::parse(steps_json(answer.transition.steps))},
                {"dma_entries", dma_entries(answer.plan)},
                {"conflict", Json::parse(part_of_plan(carrier, "conflict"))},
                {"alternatives", Json::array()},
                {"unknown", Json::parse(part_of_plan(carrier, "unknown"))},
                {"plan", nullptr}};
  for (const Alternative& a : answer.alternatives) {
    document["alternatives"].push_back({{"change", a.change}, {"subjects", a.subjects}, {"text", a.text}});
  }
  if (answer.verdict == Verdict::feasible) document["plan"] = Json::parse(to_json(answer.plan));
  return document.dump(2) + "\n";
}

// The judges' doubts; empty when there are none. What converge makes is a plan like any other; but of a container, in which
// openers and ranges are history's.
std::string contradictions(const HotplugAnswer& answer, const Plan& running, const Request& changed) {
  if (answer.verdict != Verdict::feasible || !unknown_facts(changed).empty()) return {};
  const auto plan = read_plan("plan", to_json(answer.plan));
  if (!plan) return to_text(plan.error()) + "\n";
  Judgement judgement = check_transition(running, *plan, answer.transition.steps, changed, law_of(running.interface));
  if (answer.mode == HotplugPolicy::converge && running.interface == KernelInterface::iommufd) {
    for (Objection& o : check_plan(*plan, changed, kernel_law()).objections)
      judgement.objections.push_back(std::move(o));
  }
  std::string text;
  for (const Objection& o : judgement.objections) {
    text += fmt::format("error: internal: the judge objects ({}): {}\n", o.obligation, o.text);
  }
  return text;
}

int exit_code(Verdict verdict) {
  if (verdict == Verdict::feasible) return kYes;
  return verdict == Verdict::infeasible ? kNo : kUndecided;
}

Result<void> write_plan_file(const std::string& path, const Plan& plan) {
  std::ofstream out(path);
  if ((out << to_json(plan)).flush()) return {};
  return failure(fmt::format("cannot write `{}`", path), "choose a file in a directory that can be written");
}

}  // namespace

Result<void> same_interface(const Plan& running, const Plan& next, const std::string& path) {
  if (next.interface == running.interface) return {};
  const auto word_of = [](const Plan& plan) { return kKernelInterfaceNames[static_cast<std::size_t>(plan.interface)]; };
  return failure(fmt::format("`{}` is a plan for {}, and what runs is in {}", path, word_of(next), word_of(running)),
                 fmt::format("plan it with `ioplan plan --backend {}`", word_of(running)));
}

Result<Plan> running_plan(const std::string& path, const Request& request) {
  auto plan = read_plan_file(path);
  if (!plan) return plan;
  if (plan->verdict != Verdict::feasible) return failure(fmt::format("`{}` holds no layout that could run", path));
  if (const std::string own = fingerprint(request.host); own != plan->fingerprint) {
    return failure(fmt::format("the plan was made for a host with fingerprint `{}`, and this one has `{}`",
                               plan->fingerprint, own),
                   "name the host document that the plan was made from");
  }
  if (auto layout = require_layout(*plan, request.host, law_of(plan->interface)); !layout) {
    return tl::make_unexpected(layout.error());
  }
  for (const std::string& vm : plan->vms) {
    if (std::ranges::find(request.vms, vm, &VirtualMachine::name) == request.vms.end()) {
      return failure(fmt::format("the plan is about {}, and no document describes it", vm));
    }
  }
  return plan;
}

Outcome hotplug_command(const HotplugArguments& arguments) {
  const auto change = change_of(arguments);
  if (!change) return bad_input(change.error());
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  const auto running = running_plan(arguments.plan, loaded->request);
  if (!running) return bad_input(running.error());
  const HotplugPolicy mode = arguments.mode.value_or(loaded->request.policy.hotplug);
  const auto answer = hotplug(*running, loaded->request, *change, mode, law_of(running->interface));
  if (!answer) return bad_input(answer.error());
  const auto changed = changed_request(*running, loaded->request, *change);
  if (const std::string wrong = contradictions(*answer, *running, *changed); !wrong.empty()) {
    return {kInternal, "", wrong};
  }
  if (!arguments.plan_file.empty() && answer->verdict == Verdict::feasible) {
    if (const auto written = write_plan_file(arguments.plan_file, answer->plan); !written)
      return bad_input(written.error());
  }
  return {exit_code(answer->verdict),
          arguments.format == Format::text ? text_of(arguments, *answer, *running) : json_of(*answer), ""};
}

}  // namespace ioplan::cli
