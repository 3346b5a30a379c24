#include "cli/plan_text.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "constraints/catalog.h"
#include "engine/apply/apply.h"
#include "engine/base/text.h"

namespace ioplan::cli {

namespace {

class Writer {
 public:
  Writer(const Plan& plan, const Request& request, const Sources& sources)
      : plan_(plan), request_(request), sources_(sources) {}

  std::string write() {
    headline();
    switch (plan_.verdict) {
      case Verdict::feasible: feasible(); break;
      case Verdict::infeasible: infeasible(); break;
      case Verdict::undecided: undecided(); break;
    }
    return std::move(text_);
  }

 private:
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...) + "\n";
  }

  void headline() {
    const std::string host = request_.host.name.empty() ? "the host" : request_.host.name;
    const std::string_view verdict = kVerdictNames[static_cast<std::size_t>(plan_.verdict)];
    const auto names = fmt::format("{}", fmt::join(plan_.vms, ", "));
    if (plan_.verdict != Verdict::feasible) {
      line("{}: {} on {}", verdict, names, host);
      return;
    }
    std::size_t devices = 0;
    for (const PlannedHwpt& h : plan_.hwpts) devices += h.devices.size();
    line("{}: {} on {}: {} for {}{}", verdict, names, host, count(plan_.hwpts.size(), "HWPT"), count(devices, "device"),
         in_container() ? ", through VFIO type1" : "");
  }

  static std::string count(std::size_t n, std::string_view noun) { return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s"); }

  void feasible() {
    for (const PlannedIoas& ioas : plan_.ioas) write_ioas(ioas);
    line("");
    if (plan_.kvm.noncoherent_dma) {
      line("  kvm        non-coherent DMA, because of {}", shortened(plan_.kvm.because));
    } else {
      line("  kvm        coherent DMA");
    }
    line("  memory     pinned {}, memlock {}, page tables {}", approximate_size(plan_.resources.pinned_bytes),
         approximate_size(plan_.resources.memlock_bytes), approximate_size(plan_.resources.page_table_bytes));
    line("  proof      {}", proof());
    if (!plan_.preferences.empty()) line("  preferred  {}", fmt::join(plan_.preferences, ", "));
    write_assumptions();
    write_steps();
  }

  void write_ioas(const PlannedIoas& ioas) {
    std::uint64_t bytes = 0;
    for (const MemoryRange& m : ioas.memory) bytes += m.gpa.extent() + 1;
    line("");
    line("  {}  {}: {} in {}, {} backing", ioas.id, ioas.vm, approximate_size(bytes), count(ioas.memory.size(), "range"),
         format_size(ioas.backing));
    line("    usable  {}", format_ranges(ioas.ranges));
    for (const PlannedHwpt& h : plan_.hwpts) {
      if (h.ioas == ioas.id) write_hwpt(h);
    }
  }

  bool in_container() const { return plan_.interface == KernelInterface::type1; }

  void write_hwpt(const PlannedHwpt& h) {
    std::string what = fmt::format("{} stage {}", kPageTableFormatNames[static_cast<std::size_t>(h.format)], h.stage);
    if (h.levels != 0) what += fmt::format(", {} levels", h.levels);
    what += fmt::format(", {} bits, {}, {}", h.address_bits, format_page_sizes(h.page_sizes),
                        h.enforce_cache_coherency ? "blocks no-snoop" : "does not block no-snoop");
    for (std::size_t f = 0; f < kHwptFlagNames.size(); ++f) {
      if ((h.flags >> f & 1) != 0) what += ", " + std::string(kHwptFlagNames[f]);
    }
    line("    {}   {}", h.id, what);
    line("      allocated for {}{}", label(h.allocator), !h.automatic          ? ""
                                                          : in_container() ? " when its group joins"
                                                                           : " by attaching it to the IOAS");
    for (std::size_t i = 0; i < h.devices.size(); ++i) {
      if (i == kMostDevices) {
        line("      and {} more", h.devices.size() - i);
        break;
      }
      line("      {}", label(h.devices[i]));
    }
  }

  // A device with its unit and name.
  std::string label(const std::string& id) const {
    const auto d = request_.host.find_device(id);
    if (!d) return id;
    const Device& device = request_.host.device(*d);
    std::string text = id;
    if (device.unit) text += fmt::format(" behind {}", request_.host.unit(*device.unit).id);
    if (!device.name.empty()) text += ", " + device.name;
    return text;
  }

  static std::string shortened(const std::vector<std::string>& ids) {
    constexpr std::size_t kMost = 4;
    if (ids.size() <= kMost) return fmt::format("{}", fmt::join(ids, ", "));
    return fmt::format("{} and {} more", fmt::join(ids.begin(), ids.begin() + kMost, ", "), ids.size() - kMost);
  }

  std::string proof() const {
    const Optimality& o = plan_.optimality;
    switch (o.proof) {
      case ProofKind::witness:
        if (o.hwpts <= 1) return "one HWPT is the least there is";
        if (o.lower_bound < o.hwpts) return fmt::format("at least {} HWPTs: {} exclude one another", o.lower_bound, shortened(o.witness));
        return fmt::format("fewer is impossible: no two of {} may share a HWPT", shortened(o.witness));
      case ProofKind::smt:
        return fmt::format("fewer than {} is impossible: exhausted (an SMT-LIB 2 text of the claim: --emit-smt2)", o.lower_bound);
      case ProofKind::none: break;
    }
    return fmt::format("not proved minimal within the budget: at least {} are needed", o.lower_bound);
  }

  void write_assumptions() {
    if (plan_.assumptions.empty()) return;
    std::string text;
    for (const Assumption& a : plan_.assumptions) text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", a.fact, a.value);
    line("  assumed    {}", text);
  }

  void write_steps() {
    if (plan_.steps.empty()) return;
    line("");
    line("  steps");
    std::size_t number = 0;
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      if (i == kMostSteps) {
        line("    and {} more (-o json lists them all)", plan_.steps.size() - i);
        return;
      }
      line("    {:>2}. {}", ++number, to_text(plan_.steps[i]));
    }
  }

  // "Because A, and because B, no plan exists."
  void infeasible() {
    line("");
    for (std::size_t i = 0; i < plan_.conflict.size(); ++i) {
      const Conflict& c = plan_.conflict[i];
      const bool last = i + 1 == plan_.conflict.size();
      line("  {} {}{}", i == 0 ? "Because" : "and because", c.because, last ? "," : "");
      for (const std::string& place : places(c)) line("      {}", place);
    }
    line("  there is no plan. [{}]", rules());
    write_fixes();
    write_assumptions();
  }

  std::string rules() const {
    std::vector<std::string> names;
    for (const Conflict& c : plan_.conflict) names.push_back(c.rule);
    return fmt::format("{}", fmt::join(names, ", "));
  }

  void write_fixes() {
    if (plan_.fixes.empty()) return;
    line("");
    line("  Smallest changes that help, each planned again:");
    char letter = 'a';
    for (const Fix& f : plan_.fixes) line("    {}) {}", letter++, f.text);
  }

  // Where the facts behind a conflict were written.
  std::vector<std::string> places(const Conflict& c) const {
    std::vector<std::string> found;
    const auto add = [&](const std::string& what, const Place& place) {
      if (!place.file.empty()) found.push_back(fmt::format("{}: {}", to_text(place), what));
    };
    for (const std::string& subject : c.subjects) {
      if (const auto d = request_.host.find_device(subject)) {
        add(subject, sources_.find("Host", subject, c.rule == "usable.assumed-coherency" || c.rule == "usable.dma-coherency" ? "dma_coherent" : ""));
        if (request_.host.device(*d).unit) unit_places(c.rule, request_.host.unit(*request_.host.device(*d).unit), add);
      }
      for (const VirtualMachine& vm : request_.vms) {
        if (vm.name == subject) add("in " + subject, sources_.find("VirtualMachine", subject, vm_key(c.rule)));
        if (request_.host.find_device(subject)) add("in " + vm.name, sources_.find("VirtualMachine", vm.name, subject));
      }
      if (c.rule.starts_with("policy.")) add("policy rule `" + subject + "`", sources_.find("Policy", subject));
    }
    if (c.rule.starts_with("coherency.")) add("policy", sources_.find("Policy", "", "coherency"));
    return found;
  }

  // The registers that the rule speaks of; all of them when it names none.
  template <class Add>
  void unit_places(const std::string& name, const Unit& unit, const Add& add) const {
    const Rule* rule = find_rule(name);
    if (rule == nullptr || rule->phase == Phase::usable || rule->phase == Phase::group) return;
    const std::string text = fmt::format("{} {}", rule->law, rule->source);
    constexpr std::array<std::pair<UnitFact, std::string_view>, 6> kRegisters = {{{UnitFact::cap, "CAP."},
                                                                                  {UnitFact::ecap, "ECAP."},
                                                                                  {UnitFact::efr, "EFR"},
                                                                                  {UnitFact::efr2, "EFR2"},
                                                                                  {UnitFact::idr0, "IDR"},
                                                                                  {UnitFact::features, "HTTU"}}};
    const auto mentions = [&](std::string_view word) {  // "CAP." is not meant by "ECAP."
      const std::size_t at = text.find(word);
      return at != std::string::npos && (word != "CAP." || at == 0 || text[at - 1] != 'E');
    };
    const bool named =
        std::ranges::any_of(kRegisters, [&](const auto& r) { return unit.facts[r.first] && mentions(r.second); });
    for (const auto& [fact, word] : kRegisters) {
      if (!unit.facts[fact] || (named && !mentions(word))) continue;
      const std::string key(row_of(fact).key);
      add(fmt::format("{}.{}: {:#x}", unit.id, key, *unit.facts[fact]), sources_.find("Host", unit.id, key));
    }
  }

  static std::string vm_key(const std::string& rule) {
    if (rule == "needs.dirty-tracking") return "needs.dirty_tracking";
    if (rule == "needs.nest-parent") return "needs.nest_parent";
    if (rule == "needs.pasid") return "needs.pasid";
    return rule.starts_with("ioas.") ? "memory" : "";
  }

  void undecided() {
    line("");
    for (const UnknownFact& u : plan_.unknown) {
      line("  `{}` is unknown and decides the answer:", u.fact);
      line("    {} -> {}", u.first_value, u.first_answer);
      line("    {} -> {}", u.second_value, u.second_answer);
    }
  }

  static constexpr std::size_t kMostDevices = 24;
  static constexpr std::size_t kMostSteps = 40;

  const Plan& plan_;
  const Request& request_;
  const Sources& sources_;
  std::string text_;
};

}  // namespace

std::string approximate_size(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  while (unit + 1 < kUnits.size() && bytes >> (10 * (unit + 1)) != 0) ++unit;
  const std::uint64_t whole = bytes >> (10 * unit);
  const std::uint64_t rest = unit == 0 ? 0 : (bytes >> (10 * (unit - 1))) & 1023;
  if (rest == 0) return fmt::format("{}{}", whole, kUnits[unit]);
  return fmt::format("{}.{:02}{}", whole, rest * 100 / 1024, kUnits[unit]);
}

std::string plan_text(const Plan& plan, const Request& request, const Sources& sources) {
  return Writer(plan, request, sources).write();
}

}  // namespace ioplan::cli
