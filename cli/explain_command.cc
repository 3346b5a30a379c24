// Why a plan is as it is. Everything said here is looked up in the rules and recomputed, not remembered.

#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/plan_text.h"
#include "constraints/kernel_law.h"
#include "engine/base/text.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/explain/sentence.h"
#include "engine/planner/missing.h"
#include "engine/solve/needs.h"
#include "engine/solve/solver.h"

namespace ioplan::cli {

namespace {

class Explainer {
 public:
  Explainer(const Plan& plan, Request request)
      : plan_(plan), law_(law_of(plan.interface)), request_(std::move(request)), rules_(law_) {
    for (const MissingFact& f : unknown_facts(request_)) f.set(request_, f.candidates[0]);
    const std::vector<Needs> needs = settle_needs(request_, plan_.preferences);
    for (std::size_t v = 0; v < request_.vms.size(); ++v) {
      models_.push_back(model_vm(request_, VmIndex(v), needs[v], rules_, law_));
    }
  }

  std::string everything() const {
    std::string text;
    for (const PlannedHwpt& h : plan_.hwpts) text += explain_hwpt(h);
    return text.empty() ? "the plan has no HWPTs\n" : text;
  }

  Result<std::string> why_not(const std::string& device, const std::string& hwpt) const {
    const auto planned = std::ranges::find(plan_.hwpts, hwpt, &PlannedHwpt::id);
    if (planned == plan_.hwpts.end()) return failure(fmt::format("the plan has no `{}`", hwpt), hwpt_help());
    const auto index = request_.host.find_device(device);
    if (!index) return failure(fmt::format("the host has no device `{}`", device), "name a device of the Host document");
    return matrix(*planned, *index);
  }

 private:
  std::string hwpt_help() const {
    std::string text = "it has";
    for (const PlannedHwpt& h : plan_.hwpts) text += " " + h.id;
    return text;
  }

  const VmModel& model_of(const PlannedHwpt& h) const {
    for (const PlannedIoas& ioas : plan_.ioas) {
      if (ioas.id != h.ioas) continue;
      for (const VmModel& m : models_) {
        if (request_.vms[m.problem.vm.index()].name == ioas.vm) return m;
      }
    }
    return models_.front();
  }

  HwptQuantities quantities_of(const PlannedHwpt& h) const {
    const auto allocator = request_.host.find_device(h.allocator);
    return law_.allocate(law_.describe(request_.host, allocator.value()), h.flags);
  }

  // The device as the problem knows it, or, for a device that the VM does not have, as the law describes it.
  DeviceQuantities device_quantities(const VmModel& model, DeviceIndex d) const {
    for (const DeviceClass& cls : model.problem.classes) {
      if (std::ranges::binary_search(cls.assigned, d)) return cls.quantities;
    }
    return law_.describe(request_.host, d);
  }

  Names names_of(const VmModel& model, DeviceIndex d) const {
    const Device& device = request_.host.device(d);
    Names names;
    names.device = device.id;
    names.unit = device.unit ? request_.host.unit(*device.unit).id : "its unit";
    names.vm = request_.vms[model.problem.vm.index()].name;
    return names;
  }

  std::string matrix(const PlannedHwpt& h, DeviceIndex d) const {
    const VmModel& model = model_of(h);
    const HwptQuantities hwpt = quantities_of(h);
    const DeviceQuantities device = device_quantities(model, d);
    const Names names = names_of(model, d);
    const Values values{&hwpt, &device, &model.problem.quantities};
    std::string text = fmt::format("{} and {} (allocated for {}):\n", names.device, h.id, h.allocator);
    std::size_t refused = 0;
    for (Phase phase : {Phase::usable, Phase::group, Phase::attach, Phase::placement}) {
      for (const Rule* rule : rules_.of(phase)) {
        if (!applies(*rule, values)) continue;
        const bool ok = holds(*rule, values);
        refused += ok ? 0 : 1;
        text += fmt::format("  {:<7} {:<36} {}\n", ok ? "holds" : "REFUSES", rule->name,
                            ok ? std::string(rule->law) : refusal(*rule, values, names));
      }
    }
    for (const auto& [rule, other] : kept_apart_by(model, h, d)) {
      ++refused;
      text += fmt::format("  {:<7} {:<36} policy rule `{}` keeps it and {} apart\n", "REFUSES", "policy.separate", rule, other);
    }
    return text + (refused == 0 ? fmt::format("{} may join {}.\n", names.device, h.id)
                                : fmt::format("{} may not join {}.\n", names.device, h.id));
  }

  // Separate rules between a device's item and the items of a HWPT.
  std::vector<std::pair<std::string, std::string>> kept_apart_by(const VmModel& model, const PlannedHwpt& h, DeviceIndex d) const {
    std::vector<std::pair<std::string, std::string>> found;
    const Item* mine = item_of(model, d);
    if (mine == nullptr) return found;
    for (const std::string& id : h.devices) {
      const Item* other = item_of(model, request_.host.find_device(id).value());
      if (other == nullptr || other == mine || other->lowest() != request_.host.find_device(id).value()) continue;
      for (std::size_t r = 0; r < mine->sides.size(); ++r) {
        if (kept_apart(mine->sides[r], other->sides[r])) found.emplace_back(model.problem.separate_rules[r], id);
      }
    }
    return found;
  }

  static const Item* item_of(const VmModel& model, DeviceIndex d) {
    for (const Item& item : model.problem.items) {
      if (std::ranges::binary_search(item.assigned, d)) return &item;
    }
    return nullptr;
  }

  std::string explain_hwpt(const PlannedHwpt& h) const {
    const VmModel& model = model_of(h);
    std::string text = fmt::format("{}: allocated for {} with flags {}\n", h.id, h.allocator,
                                   show_quantity(HwptQ::flags, h.flags));
    text += why_this_allocator(model, h);
    text += what_it_costs(model, h);
    for (const PlannedHwpt& other : plan_.hwpts) {
      if (other.ioas == h.ioas && other.id != h.id) text += why_apart(model, h, other);
    }
    return text;
  }

  // Attached devices whose own HWPT would be refused by another attached device.
  std::string why_this_allocator(const VmModel& model, const PlannedHwpt& h) const {
    std::string text;
    for (const std::string& id : h.devices) {
      if (id == h.allocator) continue;
      const DeviceIndex d = request_.host.find_device(id).value();
      const HwptQuantities own = law_.allocate(device_quantities(model, d), h.flags);
      if (own == quantities_of(h)) continue;
      if (const std::string no = first_refusal(model, own, h.devices); !no.empty()) {
        text += fmt::format("  a HWPT allocated for {} would not do: {}\n", id, no);
      }
    }
    return text.empty() ? "  any of its devices could have allocated it; the lowest one does\n" : text;
  }

  std::string first_refusal(const VmModel& model, const HwptQuantities& hwpt, const std::vector<std::string>& devices) const {
    for (const std::string& id : devices) {
      const DeviceIndex d = request_.host.find_device(id).value();
      const DeviceQuantities device = device_quantities(model, d);
      const Values values{&hwpt, &device, &model.problem.quantities};
      for (Phase phase : {Phase::fit, Phase::attach, Phase::placement}) {
        for (const Rule* rule : rules_.of(phase)) {
          if (!holds(*rule, values)) return fmt::format("{} [{}]", refusal(*rule, values, names_of(model, d)), rule->name);
        }
      }
    }
    return {};
  }

  // What devices lose against a HWPT of their own without flags.
  std::string what_it_costs(const VmModel& model, const PlannedHwpt& h) const {
    std::string text;
    for (const std::string& id : h.devices) {
      const DeviceQuantities device = device_quantities(model, request_.host.find_device(id).value());
      const HwptQuantities own = law_.allocate(device, 0);
      const std::uint64_t lost = own[HwptQ::page_sizes] & ~h.page_sizes;
      if (lost != 0) text += fmt::format("  {} alone could use pages of {}\n", id, format_page_sizes(lost));
      if (device[DeviceQ::enforce_cache_coherency] != 0 && !h.enforce_cache_coherency) {
        text += fmt::format("  {} alone would have its no-snoop DMA blocked\n", id);
      }
    }
    const unsigned unneeded = static_cast<unsigned>(std::popcount(static_cast<unsigned>(h.flags) & ~static_cast<unsigned>(model.problem.needed_flags)));
    if (unneeded != 0) text += fmt::format("  nobody needs {} of its flags; they make the table that all its devices accept\n", unneeded);
    return text + fmt::format("  page tables: {}\n", approximate_size(h.page_table_bytes));
  }

  // Two devices, one of each HWPT, that no template accepts together; or, if all pairs can, the whole.
  std::string why_apart(const VmModel& model, const PlannedHwpt& h, const PlannedHwpt& other) const {
    for (const std::string& a : h.devices) {
      for (const std::string& b : other.devices) {
        const std::string why = why_exclusive(model, a, b);
        if (!why.empty()) return fmt::format("  cannot be merged with {}: {}\n", other.id, why);
      }
    }
    return fmt::format("  cannot be merged with {}: any two of their devices could share, but not all of them\n", other.id);
  }

  std::string why_exclusive(const VmModel& model, const std::string& a, const std::string& b) const {
    const Item* ia = item_of(model, request_.host.find_device(a).value());
    const Item* ib = item_of(model, request_.host.find_device(b).value());
    if (ia == nullptr || ib == nullptr) return {};
    for (std::size_t r = 0; r < ia->sides.size(); ++r) {
      if (kept_apart(ia->sides[r], ib->sides[r])) return fmt::format("policy rule `{}` keeps {} and {} apart", model.problem.separate_rules[r], a, b);
    }
    for (const Offer& offer : model.offers) {
      if (offer.accepts(*ia) && offer.accepts(*ib)) return {};
    }
    const HwptQuantities of_a = law_.allocate(device_quantities(model, ia->lowest()), 0);
    const std::string refused = first_refusal(model, of_a, {b});
    return fmt::format("no HWPT accepts both {} and {}{}", a, b, refused.empty() ? "" : "; of the one for " + a + ", " + refused);
  }

  const Plan& plan_;
  const Law& law_;
  Request request_;
  RuleBook rules_;
  std::vector<VmModel> models_;
};

}  // namespace

Outcome explain_command(const ExplainArguments& arguments) {
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  if (const auto vms = require_vm(*loaded); !vms) return bad_input(vms.error());
  const auto plan = read_plan_file(arguments.plan);
  if (!plan) return bad_input(plan.error());
  if (plan->fingerprint != fingerprint(loaded->request.host)) {
    return bad_input({"the plan was made for another host", "plan again with these documents", {arguments.plan, 0, 0}, 0});
  }
  if (plan->verdict != Verdict::feasible) return {kYes, plan_text(*plan, loaded->request, loaded->sources), ""};
  const Explainer explainer(*plan, loaded->request);
  if (arguments.hwpt.empty()) return {kYes, explainer.everything(), ""};
  auto matrix = explainer.why_not(arguments.device, arguments.hwpt);
  if (!matrix) return bad_input(matrix.error());
  return {kYes, *matrix, ""};
}

}  // namespace ioplan::cli
